//! What the U-Net was trained for: the target at each point, and what a point's timestep counts.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ScoreError;
use crate::data::Calibration;
use crate::model::Prediction;
use crate::sample::NoiseSchedule;

/// Gamma of the min-SNR weights; the paper's choice for every model.
const LARGEST_RATIO: f64 = 5.0;

/// The task that calibration points pose.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What the U-Net was trained with.
    pub schedule: &'a NoiseSchedule,
    /// What each timestep counts.
    pub weighting: Weighting,
}

/// What a timestep with the signal-to-noise ratio `SNR = alpha^2 / sigma^2` counts in `timestep-weighted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// `min(SNR, 5) / SNR` of a noise prediction, `min(SNR, 5) / (SNR + 1)` of a velocity: the weights that balance the timesteps in training (Hang et al. 2023).
    #[default]
    MinSnr,
    /// `1 / SNR` of a noise prediction, `1 / (SNR + 1)` of a velocity: the loss becomes that of the clean latents which the prediction stands for.
    CleanLatents,
}

impl Task<'_> {
    /// What the U-Net should have predicted, [b, c, h, w] in f32.
    pub(super) fn target(&self, batch: &Calibration) -> Result<Tensor, ScoreError> {
        Ok(self.schedule.target(&batch.sample, &batch.noise, &batch.timestep)?)
    }

    /// What each point counts.
    pub(super) fn weights(&self, batch: &Calibration) -> candle_core::Result<Vec<f64>> {
        let weight = |timestep: i64| {
            let level = self.schedule.level(timestep as f64);
            let ratio = level.ratio().powi(-2);
            let clean = match self.schedule.prediction() {
                Prediction::Epsilon => 1.0 / ratio,
                Prediction::VPrediction => 1.0 / (ratio + 1.0),
            };
            match self.weighting {
                Weighting::MinSnr => ratio.min(LARGEST_RATIO) * clean,
                Weighting::CleanLatents => clean,
            }
        };
        Ok(batch.timestep.to_vec1::<i64>()?.into_iter().map(weight).collect())
    }
}
