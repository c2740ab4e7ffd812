//! DDIM without added noise. Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12 with eta 0.

use super::{Leg, NoiseSchedule, Path, Sampler, Spacing, Weights};

/// The entry in `SAMPLERS`.
pub(super) struct Ddim;

impl Sampler for Ddim {
    fn name(&self) -> &'static str {
        "ddim"
    }

    fn summary(&self) -> &'static str {
        "DDIM, deterministic (Song et al. 2021)"
    }

    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path {
        let spacing = schedule.spacing_or(Spacing::Leading);
        let legs = Path::strided(schedule, spacing, steps, schedule.final_level_or(true));
        Path { legs, initial_scale: 1.0 }
    }

    fn weights(&self, legs: &[Leg], index: usize) -> Weights {
        Weights::first_order(&legs[index])
    }
}
