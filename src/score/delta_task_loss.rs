//! Change of the task loss: `|L(without i) - L|`, with `L = E mean((e - target)^2)` of the noise or the velocity.
//! LeCun et al. 1990 (Optimal Brain Damage) take a weight's saliency to be what the training loss changes by when it
//! is gone; they estimate it, and here it is measured, unit by unit.

use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

pub(super) struct DeltaTaskLoss;

impl Criterion for DeltaTaskLoss {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "delta-task-loss",
            summary: "change of the training loss without the unit",
            source: "LeCun et al. 1990, Optimal Brain Damage",
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Task]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        Ok(evidence.task().growth.iter().map(|growth| growth.abs()).collect())
    }
}
