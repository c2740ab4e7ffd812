//! DDIM without added noise. Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12 with eta 0.
//!
//! As in diffusers, a leg ends one whole stride below its timestep, which is where the next begins for the usual
//! spacing (`leading`) but not always for the others.

use super::{Leg, NoiseSchedule, Path, Sampler, Spacing, Weights};

/// The row in `SAMPLERS`.
pub(super) struct Ddim;

impl Sampler for Ddim {
    fn name(&self) -> &'static str {
        "ddim"
    }

    fn summary(&self) -> &'static str {
        "DDIM, deterministic (Song et al. 2021)"
    }

    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path {
        let stride = (schedule.train_timesteps() / steps) as f64;
        let leg = |timestep: f64| {
            let timestep = timestep.round_ties_even();
            let end = timestep - stride;
            let to = if end >= 0.0 { schedule.level(end) } else { schedule.final_level() };
            Leg { timestep, from: schedule.level(timestep), to }
        };
        let spacing = schedule.spacing_or(Spacing::Leading);
        let timesteps = spacing.timesteps(schedule.train_timesteps(), steps, schedule.steps_offset());
        Path { legs: timesteps.into_iter().map(leg).collect(), initial_scale: 1.0 }
    }

    fn weights(&self, legs: &[Leg], index: usize) -> Weights {
        Weights::first_order(&legs[index])
    }
}
