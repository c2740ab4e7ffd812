//! Noise schedules and samplers: from a U-Net's predictions to latents.
//!
//! Inside, latents always have unit variance (`x = alpha * x0 + sigma * noise`, alpha² + sigma² = 1): what the U-Net is
//! fed. Every sampler here is then a list of [`Leg`]s and, per leg, the weights of a linear combination, so a new
//! sampler is one file of scalar arithmetic and one row in [`SAMPLERS`].

mod config;
mod ddim;
mod dpm_solver_pp_2m;
mod error;
mod euler;
mod euler_ancestral;
mod generator;
mod noise;
mod path;
mod pndm;
mod schedule;
mod spacing;

pub use crate::model::Prediction;
pub use error::SampleError;
pub use generator::{Generator, Visit};
pub use noise::Noise;
pub use path::{Leg, Path, Weights, integrate};
pub use schedule::{Level, NoiseSchedule};
pub use spacing::Spacing;

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

/// Every sampler there is.
pub const SAMPLERS: &[&dyn Sampler] = &[
    &ddim::Ddim,
    &dpm_solver_pp_2m::DpmSolverPp2m,
    &euler::Euler,
    &euler_ancestral::EulerAncestral,
    &pndm::Pndm,
];

/// The sampler of this name.
pub fn find(name: &str) -> Result<&'static dyn Sampler, SampleError> {
    SAMPLERS
        .iter()
        .copied()
        .find(|sampler| sampler.name() == name)
        .ok_or_else(|| SampleError::UnknownSampler { name: name.to_owned() })
}

/// The names in [`SAMPLERS`], for messages.
fn names() -> String {
    SAMPLERS.iter().map(|sampler| sampler.name()).collect::<Vec<_>>().join(", ")
}
