//! Random scores: the control that every criterion should beat.

use rand::RngExt;

use serde::Deserialize;

use crate::score::criterion::{Criterion, CriterionInfo};
use crate::score::error::ScoreError;
use crate::score::evidence::Evidence;

/// It has no parameters.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RandomScore {}

pub(super) const INFO: CriterionInfo = CriterionInfo {
    name: "random",
    summary: "uniform random numbers from the pipeline's seed",
    source: "a control",
    parameters: None,
};

impl Criterion for RandomScore {
    fn info(&self) -> &'static CriterionInfo {
        &INFO
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let mut stream = evidence.teacher.random.stream("random scores", 0);
        Ok(evidence.teacher.unet.units().iter().map(|_| stream.random()).collect())
    }
}
