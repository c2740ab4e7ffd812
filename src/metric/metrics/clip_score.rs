//! CLIP score: how well pictures match their prompts. Hessel et al. 2021, "CLIPScore", equation 1 with the factor of
//! torchmetrics: 100 * max(cos, 0). Values of different CLIP models cannot be compared.

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{FeatureInputs, clip_scores};
use crate::metric::kinds::{Better, Need};

/// The row in `METRICS`.
pub(super) struct ClipScore;

impl Metric for ClipScore {
    fn name(&self) -> &'static str {
        "clip-score"
    }

    fn title(&self) -> String {
        "CLIP score".to_owned()
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

    fn method(&self) -> Method {
        Method::Features(measure)
    }

    fn released(&self) -> Option<&'static str> {
        Some("openai/clip-vit-large-patch14 on the hub takes 1.7 GB")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }
}

fn measure(inputs: &FeatureInputs<'_>) -> Result<Vec<f64>, MetricError> {
    Ok(clip_scores(&inputs.cosines()?))
}
