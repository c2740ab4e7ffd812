//! Diff-Pruning: `sum |w g_t|` over the weights of a branch and over the timesteps with `L_t > threshold * max L`.
//! Fang et al. 2023: timesteps with a small loss contribute mostly noise to the sum. They go up from timestep 0 and stop at
//! the first one below the threshold, 0.05 for DDPM and 0.1 for latent models.
//!
//! Where we differ: their code adds the gradients of all timesteps before it takes absolute values; here the absolute
//! values of each timestep are added, so that effects at different noise levels do not cancel. No gradient is computed
//! twice, and only sums per unit are kept. The timesteps are those of the calibration points.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::bounded::BelowOne;
use crate::base::{Manifest, Real};
use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;

/// `diff-pruning:` of `use: score`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct DiffPruning {
    /// Timesteps whose task loss is at most this share of the largest are left out. Default 0.1, the authors' value for latent models; for DDPM they use 0.05.
    threshold: Real<BelowOne>,
}

impl Default for DiffPruning {
    fn default() -> Self {
        Self { threshold: Real::new(0.1) }
    }
}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "diff-pruning",
    summary: "first-order estimate by single weights and timesteps, without timesteps of small loss",
    source: "Fang et al. 2023, Diff-Pruning, arXiv 2305.10924",
    parameters: Some(|generator| generator.subschema_for::<DiffPruning>()),
};

impl Criterion for DiffPruning {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Gradients]
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.float("diff-pruning.threshold", self.threshold.get());
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let timesteps = &evidence.gradients().timesteps;
        let largest = timesteps.iter().map(|one| one.loss).fold(0.0, f64::max);
        let mut sums = vec![0.0; evidence.teacher.unet.units().len()];
        for one in timesteps.iter().filter(|one| one.loss > self.threshold.get() * largest) {
            sums.iter_mut().zip(&one.absolute).for_each(|(sum, value)| *sum += value);
        }
        Ok(sums)
    }
}
