//! The interface of a sampler.

use super::path::{Leg, Path, Weights};
use super::schedule::NoiseSchedule;

/// A method to turn noise into latents. All randomness is passed in: the initial noise, and the noise requested by
/// [`Weights::noise`].
pub trait Sampler: Send + Sync {
    /// Its name in pipelines.
    fn name(&self) -> &'static str;

    /// One line for `laptop-diff list`.
    fn summary(&self) -> &'static str;

    /// Where it evaluates the U-Net for `steps` steps, noisiest first; one leg per evaluation. Call it through
    /// [`Path::new`], which checks the number of steps.
    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path;

    /// How the latents at the end of leg `index` are computed from the values known at its start.
    fn weights(&self, legs: &[Leg], index: usize) -> Weights;
}
