//! Noise schedules and samplers: from a U-Net's predictions to latents.
//!
//! Internally, latents always have unit variance (`x = alpha * x0 + sigma * noise`, alpha² + sigma² = 1), as the U-Net
//! expects them. Every sampler is then a list of [`Leg`]s and, per leg, the weights of a linear combination, so a new
//! sampler is one file of scalar arithmetic and one row in [`SAMPLERS`].

mod class;
mod config;
mod ddim;
mod dpm_solver_pp_2m;
mod error;
mod euler;
mod euler_ancestral;
mod generator;
mod ignored;
mod integrate;
mod noise;
mod path;
mod pndm;
mod sampler;
mod schedule;
mod spacing;

use crate::base::names::{self, UnknownName};

pub use crate::model::Prediction;
pub use error::SampleError;
pub use generator::{Generator, Visit, check_inputs};
pub use ignored::notes;
pub use integrate::integrate;
pub use noise::Noise;
pub use path::{Leg, Path, Weights};
pub use sampler::Sampler;
pub use schedule::{Level, NoiseSchedule};
pub use spacing::Spacing;

/// All samplers.
pub const SAMPLERS: &[&dyn Sampler] = &[
    &ddim::Ddim,
    &dpm_solver_pp_2m::DpmSolverPp2m,
    &euler::Euler,
    &euler_ancestral::EulerAncestral,
    &pndm::Pndm,
];

/// Looks up a sampler by name.
pub fn find(name: &str) -> Result<&'static dyn Sampler, UnknownName> {
    names::find("sampler", SAMPLERS, |sampler| sampler.name(), name).copied()
}
