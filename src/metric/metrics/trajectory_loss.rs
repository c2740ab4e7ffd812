//! Trajectory loss: the mean squared difference between the latents that a model ends with and those of the teacher, from the
//! same noise and the same prompt, after all sampling steps with guidance. One value per prompt.
//!
//! The output loss looks at single steps. Where the noise is strong, an error of the prediction is a small number, though it
//! decides what the picture shows; here it has its whole effect. The metric is ours.

use crate::metric::definition::{Method, Metric};
use crate::metric::inputs::mean_squares;
use crate::metric::kinds::{Better, Need, Prominence};

/// The row in `METRICS`.
pub(super) struct TrajectoryLoss;

impl Metric for TrajectoryLoss {
    fn name(&self) -> &'static str {
        "trajectory-loss"
    }

    fn summary(&self) -> &'static str {
        "mean squared difference from the teacher's latents after all sampling steps, from the same noise"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Latents(|own, teacher| mean_squares(&(own - teacher)?))
    }

    fn prominence(&self) -> Prominence {
        Prominence::Comparison
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures]
    }
}
