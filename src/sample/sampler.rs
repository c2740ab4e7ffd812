//! What a sampler is.

use super::path::{Leg, Path, Weights};
use super::schedule::NoiseSchedule;

/// One way from noise to latents. All randomness comes from outside: the initial noise, and what
/// [`Weights::noise`] asks for.
pub trait Sampler: Send + Sync {
    /// Its name in pipelines.
    fn name(&self) -> &'static str;

    /// One line for `laptop-diff list`.
    fn summary(&self) -> &'static str;

    /// Where it evaluates the U-Net when it has `steps` steps, noisiest first; a leg for each evaluation.
    /// Call it through [`Path::new`], which checks the number of steps.
    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path;

    /// How the latents at the end of leg `index` come from what is known at its start.
    fn weights(&self, legs: &[Leg], index: usize) -> Weights;
}
