//! Random scores: the control that every criterion must beat.

use rand::RngExt;

use super::{Criterion, CriterionInfo, Evidence, ScoreError};

pub(super) struct RandomScore;

impl Criterion for RandomScore {
    fn info(&self) -> CriterionInfo {
        CriterionInfo {
            name: "random",
            summary: "uniform random numbers from the pipeline's seed",
            source: "a control",
        }
    }

    fn scores(&self, evidence: &Evidence<'_>) -> Result<Vec<f64>, ScoreError> {
        let mut stream = evidence.teacher.random.stream("random scores", 0);
        Ok(evidence.teacher.unet.units().iter().map(|_| stream.random()).collect())
    }
}
