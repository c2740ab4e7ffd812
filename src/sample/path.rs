//! The output of a sampler: where the U-Net is evaluated, and how the next latents are computed.

use super::{Level, NoiseSchedule, Spacing};

/// One evaluation of the U-Net and the update that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// The timestep passed to the U-Net.
    pub timestep: f64,
    /// The noise level of the latents before the update.
    pub from: Level,
    /// The noise level after the update.
    pub to: Level,
    /// Whether the update starts from the same latents as the previous leg, and so replaces it.
    pub again: bool,
}

/// All legs of one trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The legs, noisiest first.
    pub legs: Vec<Leg>,
    /// Factor that turns standard normal noise into the first latents.
    pub initial_scale: f64,
}

/// The weights of the linear combination that gives the next latents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Weights of the predictions of this leg and earlier ones, latest first; the weighted sum replaces this leg's
    /// prediction.
    pub predictions: &'static [f64],
    /// Weight of the latents at the start of the leg.
    pub latents: f64,
    /// Weight of the clean latents predicted there.
    pub clean: f64,
    /// Weight of the clean latents predicted one leg earlier; 0 on the first leg.
    pub previous_clean: f64,
    /// Weight of fresh standard normal noise.
    pub noise: f64,
}

impl Path {
    /// The number of training timesteps between two of `steps`, rounded down.
    pub(super) fn stride(schedule: &NoiseSchedule, steps: usize) -> f64 {
        (schedule.train_timesteps() / steps) as f64
    }

    /// Legs that each end one full stride below their timestep. With the usual spacing (`leading`) the next leg starts
    /// there, with the others not always; `end` is the level below timestep 0. This is how diffusers implements DDIM
    /// and PNDM.
    pub(super) fn strided(schedule: &NoiseSchedule, spacing: Spacing, steps: usize, end: Level) -> Vec<Leg> {
        let stride = Self::stride(schedule, steps);
        let leg = |timestep: f64| {
            let timestep = timestep.round_ties_even();
            let below = timestep - stride;
            let to = if below >= 0.0 { schedule.level(below) } else { end };
            Leg { timestep, from: schedule.level(timestep), to, again: false }
        };
        let timesteps = spacing.timesteps(schedule.train_timesteps(), steps, schedule.steps_offset());
        timesteps.into_iter().map(leg).collect()
    }

    /// Legs that each end where the next one starts; the last one ends without noise.
    pub(super) fn chained(schedule: &NoiseSchedule, timesteps: &[f64]) -> Vec<Leg> {
        let levels: Vec<Level> =
            timesteps.iter().map(|&timestep| schedule.level_with_signal(timestep)).collect();
        let ends = levels.iter().copied().skip(1).chain([Level::CLEAN]);
        let legs = timesteps.iter().zip(&levels).zip(ends);
        legs.map(|((&timestep, &from), to)| Leg { timestep, from, to, again: false }).collect()
    }
}

impl Weights {
    /// The first-order step of DDIM: keeps the predicted clean latents and the predicted noise, and changes their
    /// amplitudes. Song et al. 2021, equation 12 with eta 0, with the noise written as `(x - alpha * x0) / sigma`.
    pub(super) fn first_order(leg: &Leg) -> Self {
        let shrink = leg.to.sigma / leg.from.sigma;
        Self {
            predictions: &[1.0],
            latents: shrink,
            clean: leg.to.alpha - leg.from.alpha * shrink,
            previous_clean: 0.0,
            noise: 0.0,
        }
    }
}
