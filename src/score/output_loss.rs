//! Output loss: how far the noise prediction moves when one unit is gone.
//! Zhang et al. 2024 (LAPTOP-Diff); the mean over elements is ours, so that scores compare across resolutions.

use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

/// What a pipeline file calls it.
pub const NAME: &str = "output-loss";

pub(super) struct OutputLoss;

impl Criterion for OutputLoss {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: NAME,
            summary: "mean squared change of the noise prediction without the unit",
            source: "Zhang et al. 2024, LAPTOP-Diff, arXiv 2404.11098",
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Traversal]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let gram = &evidence.traversal().gram;
        Ok((0..gram.units().len()).map(|row| gram.at(row, row)).collect())
    }
}
