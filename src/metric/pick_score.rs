//! PickScore: Kirstain et al. 2023, "Pick-a-Pic", section 4: s(x, y) = T * cos(E_text(x), E_image(y)), with T the
//! exponential of the scorer's learned `logit_scale`. Those are the numbers in which LAPTOP-Diff states its declines.
//! They are PickScores only when the scorer is `yuvalkirstain/PickScore_v1`; with another CLIP it is the same formula.

use super::{Better, Exam, Metric, MetricError, Need, Subject};

/// The row in `METRICS`.
pub(super) struct PickScore;

impl Metric for PickScore {
    fn name(&self) -> &'static str {
        "pick-score"
    }

    fn summary(&self) -> &'static str {
        "logit scale x cosine of picture and prompt; PickScore if the scorer is PickScore_v1 (Kirstain et al. 2023)"
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
        Ok(judge.cosines(features)?.into_iter().map(|cosine| judge.logit_scale() * cosine).collect())
    }
}
