//! Euler steps of the probability-flow equation. Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based
//! Generative Models", algorithm 1 without churn.
//!
//! diffusers steps on `x / alpha`, whose derivative with respect to sigma/alpha is the predicted noise. On the
//! unit-variance latents used here this equals DDIM's step. The differences are the timesteps, which need not be
//! integers, the last step, which always ends without noise, and the scaling of the initial noise.
//! always without noise, and how the noise is scaled first.

use super::{Leg, NoiseSchedule, Path, Sampler, Spacing, Weights};

/// The entry in `SAMPLERS`.
pub(super) struct Euler;

impl Sampler for Euler {
    fn name(&self) -> &'static str {
        "euler"
    }

    fn summary(&self) -> &'static str {
        "Euler steps of the probability-flow equation (Karras et al. 2022), SDXL's default"
    }

    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path {
        let spacing = schedule.spacing_or(Spacing::Linspace);
        let timesteps = spacing.timesteps(schedule.train_timesteps(), steps, schedule.steps_offset());
        let legs = Path::chained(schedule, &timesteps);
        // diffusers' init_noise_sigma: sqrt(ratio² + 1) for `leading`, which is 1 here, else the ratio itself.
        let initial_scale = if spacing == Spacing::Leading { 1.0 } else { legs[0].from.sigma };
        Path { legs, initial_scale }
    }

    fn weights(&self, legs: &[Leg], index: usize) -> Weights {
        Weights::first_order(&legs[index])
    }
}
