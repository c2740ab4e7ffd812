//! FD-DINOv2: Stein et al. 2023, "Exposing flaws of generative model evaluation metrics". FID with the features of DINOv2,
//! which agree with people where Inception's do not. Values are theirs if the scorer is a ViT-L/14 such as
//! `facebook/dinov2-large`, and only sets of equal size can be compared: they use 50,000 pictures.
//!
//! It has no interval, for the same reason as FID.

use crate::metric::definition::{Method, Metric};
use crate::metric::frechet;
use crate::metric::kinds::{Better, Need};
use crate::model::ScorerKind;

/// The row in `METRICS`.
pub(super) struct FdDinov2;

impl Metric for FdDinov2 {
    fn name(&self) -> &'static str {
        "fd-dinov2"
    }

    fn title(&self) -> String {
        "FD-DINOv2".to_owned()
    }

    fn summary(&self) -> &'static str {
        "distance of all pictures from the reference in the space of DINOv2 (Stein et al. 2023)"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Set(frechet::measure)
    }

    fn released(&self) -> Option<&'static str> {
        Some("facebook/dinov2-large on the hub takes 1.2 GB")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }

    fn scorers(&self) -> &'static [ScorerKind] {
        &[ScorerKind::DinoV2]
    }
}
