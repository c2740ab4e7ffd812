//! Timestep-weighted output loss: `sum_x w_t mean(d_i^2) / sum_x w_t`.
//! That pruning should know which timesteps matter is the idea of Yang et al. 2026 (Amber-Image: "timestep-sensitive
//! depth pruning"). Only its abstract was at hand: the weights are ours to choose, see [`super::Weighting`].

use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

pub(super) struct TimestepWeighted;

impl Criterion for TimestepWeighted {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "timestep-weighted",
            summary: "output loss with a weight for each timestep",
            source: "Yang et al. 2026, Amber-Image, arXiv 2602.17047; weights of Hang et al. 2023, arXiv 2303.09556",
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Task]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        Ok(evidence.task().weighted.clone())
    }
}
