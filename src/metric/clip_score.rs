//! CLIP score: how well pictures fit their prompts. Hessel et al. 2021, "CLIPScore", equation 1 with torchmetrics' factor:
//! 100 * max(cos, 0). It depends on which CLIP is asked, so compare only within one scorer.

use super::{Better, Exam, Metric, MetricError, Need, Subject};

/// The row in `METRICS`.
pub(super) struct ClipScore;

impl Metric for ClipScore {
    fn name(&self) -> &'static str {
        "clip-score"
    }

    fn summary(&self) -> &'static str {
        "100 x cosine of picture and prompt in the scorer's space, not below 0 (Hessel et al. 2021)"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Higher
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }

    fn measure(&self, exam: &Exam<'_>, subject: &Subject<'_>) -> Result<Vec<f64>, MetricError> {
        let (judge, features) = exam.judged(self.name(), subject)?;
        Ok(judge.clip_scores(features)?)
    }
}
