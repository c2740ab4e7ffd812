//! Diff-Pruning: `sum |w g_t|` over the weights of a branch and over the timesteps with `L_t > threshold * max L`.
//! Fang et al. 2023: a timestep with hardly a loss left to lose adds noise to the sum and not much else. They walk up from
//! timestep 0 and stop at the first one below the threshold, 0.05 for DDPM and 0.1 for latent models.
//!
//! Where we differ: their code adds the gradients of the timesteps before it takes absolute values, here each
//! timestep's count, so that what a branch does against noise of one level is not cancelled by another. It takes no gradient
//! twice, and the sums per unit are all that has to be kept. The timesteps are those of the calibration points.

use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

pub(super) struct DiffPruning;

impl Criterion for DiffPruning {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "diff-pruning",
            summary: "first-order estimate by single weights and timesteps, without those that have hardly a loss",
            source: "Fang et al. 2023, Diff-Pruning, arXiv 2305.10924",
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Gradients]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let timesteps = &evidence.gradients().timesteps;
        let largest = timesteps.iter().map(|one| one.loss).fold(0.0, f64::max);
        let mut sums = vec![0.0; evidence.teacher.unet.units().len()];
        for one in timesteps.iter().filter(|one| one.loss > evidence.teacher.threshold * largest) {
            sums.iter_mut().zip(&one.absolute).for_each(|(sum, value)| *sum += value);
        }
        Ok(sums)
    }
}
