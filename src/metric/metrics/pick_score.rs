//! PickScore: Kirstain et al. 2023, "Pick-a-Pic", section 4: s(x, y) = T * cos(E_text(x), E_image(y)), with T the
//! exponential of the scorer's learned `logit_scale`. LAPTOP-Diff reports its losses of quality in this score.
//! The values are PickScores only if the scorer is `yuvalkirstain/PickScore_v1`; other CLIP models use the same formula.

use crate::metric::definition::Metric;
use crate::metric::error::MetricError;
use crate::metric::inputs::{EvaluationInputs, LoadedModel};
use crate::metric::kinds::{Better, Need, Prominence};

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

    fn prominence(&self) -> Prominence {
        Prominence::Card
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }

    fn measure(
        &self,
        inputs: &EvaluationInputs<'_>,
        model: &LoadedModel<'_>,
    ) -> Result<Vec<f64>, MetricError> {
        let (scorer, features) = inputs.scored_pictures(self.name(), model)?;
        Ok(scorer.cosines(features)?.into_iter().map(|cosine| scorer.logit_scale() * cosine).collect())
    }
}
