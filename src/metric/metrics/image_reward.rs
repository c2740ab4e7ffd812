//! ImageReward: Xu et al. 2023, "ImageReward: Learning and Evaluating Human Preferences". One number per picture and prompt,
//! with mean 0 and deviation 1 over the authors' data, so that a percentage of it means nothing.

use crate::metric::definition::{Method, Metric};
use crate::metric::kinds::{Better, Need, Prominence};
use crate::model::ScorerKind;

/// The row in `METRICS`.
pub(super) struct ImageReward;

impl Metric for ImageReward {
    fn name(&self) -> &'static str {
        "image-reward"
    }

    fn title(&self) -> String {
        "ImageReward".to_owned()
    }

    fn summary(&self) -> &'static str {
        "ImageReward's score of picture and prompt (Xu et al. 2023)"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Higher
    }

    fn method(&self) -> Method {
        Method::Scores
    }

    fn prominence(&self) -> Prominence {
        Prominence::Comparison
    }

    fn released(&self) -> Option<&'static str> {
        Some(
            "ImageReward.pt of THUDM/ImageReward on the hub takes 1.8 GB; examples/convert-weights.py makes the folder of it",
        )
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }

    fn scorers(&self) -> &'static [ScorerKind] {
        &[ScorerKind::ImageReward]
    }

    fn has_zero(&self) -> bool {
        false
    }
}
