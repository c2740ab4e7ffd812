//! Block influence: how much a unit turns the features that pass it.
//! Men et al. 2024 (ShortGPT): 1 - E cos(input, output) over tokens. For a ResNet that changes width, the
//! input is taken after its shortcut (ours): what would stand there without the branch.

use super::{Criterion, CriterionInfo, Evidence, Need, ScoreError};

pub(super) struct BlockInfluence;

impl Criterion for BlockInfluence {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "block-influence",
            summary: "1 - cosine of the features before and after the unit",
            source: "Men et al. 2024, ShortGPT, arXiv 2403.03853",
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Traversal]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        Ok(evidence.traversal().influence.clone())
    }
}
