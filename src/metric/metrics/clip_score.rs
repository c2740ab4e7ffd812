//! CLIP score: how well pictures match their prompts. Hessel et al. 2021, "CLIPScore", equation 1 with the factor of
//! torchmetrics: 100 * max(cos, 0). Values of different CLIP models cannot be compared.

use crate::metric::definition::Metric;
use crate::metric::error::MetricError;
use crate::metric::inputs::{EvaluationInputs, LoadedModel};
use crate::metric::kinds::{Better, Need};

/// The row in `METRICS`.
pub(super) struct ClipScore;

impl Metric for ClipScore {
    fn name(&self) -> &'static str {
        "clip-score"
    }

    fn summary(&self) -> &'static str {
        "100 x cosine of picture and prompt in the scorer's space, at least 0 (Hessel et al. 2021)"
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

    fn measure(
        &self,
        inputs: &EvaluationInputs<'_>,
        model: &LoadedModel<'_>,
    ) -> Result<Vec<f64>, MetricError> {
        let (scorer, features) = inputs.scored_pictures(self.name(), model)?;
        Ok(scorer.clip_scores(features)?)
    }
}
