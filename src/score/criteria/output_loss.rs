//! Output loss: how much the noise prediction changes when one unit is removed.
//! Zhang et al. 2024 (LAPTOP-Diff); the mean over elements is ours: it makes scores comparable across resolutions.

use serde::Deserialize;

use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;
use crate::score::scores::OUTPUT_LOSS;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OutputLoss {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: OUTPUT_LOSS,
    summary: "mean squared change of the noise prediction without the unit",
    source: "Zhang et al. 2024, LAPTOP-Diff, arXiv 2404.11098",
    parameters: None,
};

impl Criterion for OutputLoss {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Traversal]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let gram = &evidence.traversal().gram;
        Ok((0..gram.units().len()).map(|row| gram.at(row, row)).collect())
    }
}
