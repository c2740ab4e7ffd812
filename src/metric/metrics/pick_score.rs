//! PickScore: Kirstain et al. 2023, "Pick-a-Pic", section 4: s(x, y) = T * cos(E_text(x), E_image(y)), with T the
//! exponential of the scorer's learned `logit_scale`. LAPTOP-Diff reports its losses of quality in this score.
//! The values are PickScores only if the scorer is `yuvalkirstain/PickScore_v1`; other CLIP models use the same formula.

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::FeatureInputs;
use crate::metric::kinds::{Better, Need, Prominence};

/// The row in `METRICS`.
pub(super) struct PickScore;

impl Metric for PickScore {
    fn name(&self) -> &'static str {
        "pick-score"
    }

    fn title(&self) -> String {
        "PickScore".to_owned()
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

    fn method(&self) -> Method {
        Method::Features(measure)
    }

    fn prominence(&self) -> Prominence {
        Prominence::Card
    }

    fn released(&self) -> Option<&'static str> {
        Some("yuvalkirstain/PickScore_v1 on the hub takes 3.9 GB")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }
}

fn measure(inputs: &FeatureInputs<'_>) -> Result<Vec<f64>, MetricError> {
    Ok(inputs.cosines()?.into_iter().map(|cosine| inputs.logit_scale * cosine).collect())
}
