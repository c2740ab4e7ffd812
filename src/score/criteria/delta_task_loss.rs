//! Change of the task loss: `|L(without i) - L|`, with `L = E mean((e - target)^2)` of the noise or the velocity.
//! LeCun et al. 1990 (Optimal Brain Damage) define a weight's saliency as the change of the training loss when the weight is
//! removed. They estimate it; here it is measured, unit by unit.

use serde::Deserialize;

use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DeltaTaskLoss {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "delta-task-loss",
    summary: "change of the training loss without the unit",
    source: "LeCun et al. 1990, Optimal Brain Damage",
    parameters: None,
};

impl Criterion for DeltaTaskLoss {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Task]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        Ok(evidence.task().growth.iter().map(|growth| growth.abs()).collect())
    }
}
