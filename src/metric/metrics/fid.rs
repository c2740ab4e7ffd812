//! FID: Heusel et al. 2017. The Frechet distance of Inception's features of two sets of pictures, resized as in pytorch-fid.
//! It is here for comparison with published tables: it can improve while a pruned model gets worse.
//!
//! It has no interval. The estimate is biased by an amount that depends on the number of pictures, and resampled pictures
//! occur twice, which moves the covariances: no resample is centred on the value.

use crate::metric::definition::{Method, Metric};
use crate::metric::frechet;
use crate::metric::kinds::{Better, Need};
use crate::model::ScorerKind;

/// Fewer pictures give numbers that depend on how many there are more than on the models.
const LEAST: usize = 5000;

/// The row in `METRICS`.
pub(super) struct Fid;

impl Metric for Fid {
    fn name(&self) -> &'static str {
        "fid"
    }

    fn title(&self) -> String {
        "FID".to_owned()
    }

    fn summary(&self) -> &'static str {
        "distance of all pictures from the reference in the space of Inception v3; says little of pruned models (Heusel et al. 2017)"
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
        Some(
            "pt_inception-2015-12-05-6726825d.pth of the releases of github.com/mseitzer/pytorch-fid takes 96 MB; examples/convert-weights.py makes the folder of it",
        )
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }

    fn scorers(&self) -> &'static [ScorerKind] {
        &[ScorerKind::Inception]
    }

    fn least_pictures(&self) -> usize {
        LEAST
    }
}
