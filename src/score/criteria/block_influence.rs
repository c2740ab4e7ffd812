//! Block influence: how much a unit changes the direction of the features that pass through it.
//! Men et al. 2024 (ShortGPT): 1 - E cos(input, output) over tokens. For a ResNet that changes the width, the input is
//! taken after its shortcut (ours), where it has the width of the output.

use serde::Deserialize;

use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;
use crate::score::need::Need;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct BlockInfluence {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "block-influence",
    summary: "1 - cosine of the features before and after the unit",
    source: "Men et al. 2024, ShortGPT, arXiv 2403.03853",
    parameters: None,
};

impl Criterion for BlockInfluence {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Traversal]
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        Ok(evidence.traversal().influence.clone())
    }
}
