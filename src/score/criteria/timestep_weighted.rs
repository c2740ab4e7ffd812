//! Timestep-weighted output loss: `sum_x w_t mean(d_i^2) / sum_x w_t`.
//! Yang et al. 2026 (Amber-Image: "timestep-sensitive depth pruning") propose that pruning should know which timesteps
//! matter. Only the abstract was available to us, so the weights are our choice: see [`Weighting`].

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::Manifest;
use crate::data::Calibration;
use crate::model::Prediction;
use crate::sample::NoiseSchedule;
use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;

/// Gamma of the min-SNR weights; the paper uses it for every model.
const GAMMA: f64 = 5.0;

/// `timestep-weighted:` of `use: score`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct TimestepWeighted {
    /// The weight of each timestep. Default `min-snr`.
    weighting: Weighting,
}

/// The weight of a timestep with the signal-to-noise ratio `SNR = alpha^2 / sigma^2`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Weighting {
    /// `min(SNR, 5) / SNR` for a noise prediction, `min(SNR, 5) / (SNR + 1)` for a velocity: the weights that balance the timesteps in training (Hang et al. 2023).
    #[default]
    MinSnr,
    /// `1 / SNR` for a noise prediction, `1 / (SNR + 1)` for a velocity: the loss becomes that of the predicted clean latents.
    CleanLatents,
}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "timestep-weighted",
    summary: "output loss with a weight for each timestep",
    source: "Yang et al. 2026, Amber-Image, arXiv 2602.17047; weights of Hang et al. 2023, arXiv 2303.09556",
    parameters: Some(|generator| generator.subschema_for::<TimestepWeighted>()),
};

impl Criterion for TimestepWeighted {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Task]
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("timestep-weighted.weighting", format_args!("{:?}", self.weighting));
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let teacher = evidence.teacher;
        let schedule = teacher.schedule.expect("BUG: needs were checked before");
        let weights = self.weighting.weights(teacher.points, schedule)?;
        // Batch by batch, as every other mean over points is added.
        let batch = evidence.context.limits.points.max(1);
        let sum = |values: &[f64]| values.chunks(batch).map(|part| part.iter().sum::<f64>()).sum::<f64>();
        let weighted = |losses: &Vec<f64>| -> Vec<f64> {
            losses.iter().zip(&weights).map(|(loss, weight)| weight * loss).collect()
        };
        let total = sum(&weights);
        Ok(evidence.task().losses.iter().map(|losses| sum(&weighted(losses)) / total).collect())
    }
}

impl Weighting {
    /// The weight of each point.
    fn weights(self, points: &Calibration, schedule: &NoiseSchedule) -> candle_core::Result<Vec<f64>> {
        let weight = |timestep: i64| {
            let snr = schedule.level(timestep as f64).ratio().powi(-2);
            let clean = match schedule.prediction() {
                Prediction::Epsilon => 1.0 / snr,
                Prediction::VPrediction => 1.0 / (snr + 1.0),
            };
            match self {
                Self::MinSnr => snr.min(GAMMA) * clean,
                Self::CleanLatents => clean,
            }
        };
        Ok(points.timestep.to_vec1::<i64>()?.into_iter().map(weight).collect())
    }
}
