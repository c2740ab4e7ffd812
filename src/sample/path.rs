//! What a sampler gives: where the U-Net is evaluated, and how the next latents come from what is known.

use super::{Level, NoiseSchedule, Spacing};

/// One evaluation of the U-Net and the move that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// The timestep the U-Net is told.
    pub timestep: f64,
    /// The level the latents are taken to have.
    pub from: Level,
    /// The level they are brought to.
    pub to: Level,
    /// Whether the move starts where that of the leg before did, and so replaces it.
    pub again: bool,
}

/// All legs of one trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The legs, noisiest first.
    pub legs: Vec<Leg>,
    /// What standard normal noise is multiplied by to become the first latents.
    pub initial_scale: f64,
}

/// The next latents as a linear combination of what is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of this leg's prediction and those before it, the latest first: their sum stands for this leg's.
    pub predictions: &'static [f64],
    /// Of the latents at the start of the leg.
    pub latents: f64,
    /// Of the clean latents predicted there.
    pub clean: f64,
    /// Of the clean latents predicted one leg earlier; 0 on the first leg.
    pub previous_clean: f64,
    /// Of fresh standard normal noise.
    pub noise: f64,
}

impl Path {
    /// How many training timesteps lie between two of `steps`, rounded down.
    pub(super) fn stride(schedule: &NoiseSchedule, steps: usize) -> f64 {
        (schedule.train_timesteps() / steps) as f64
    }

    /// Legs that each end one whole stride below their timestep, which is where the next begins for the usual spacing
    /// (`leading`) but not always for the others; `end` is what lies below 0. So diffusers has it in DDIM and PNDM.
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

    /// Legs that each end where the next begins, the last one without noise.
    pub(super) fn chained(schedule: &NoiseSchedule, timesteps: &[f64]) -> Vec<Leg> {
        let levels: Vec<Level> = timesteps.iter().map(|&timestep| schedule.level(timestep)).collect();
        let ends = levels.iter().copied().skip(1).chain([Level::CLEAN]);
        let legs = timesteps.iter().zip(&levels).zip(ends);
        legs.map(|((&timestep, &from), to)| Leg { timestep, from, to, again: false }).collect()
    }
}

impl Weights {
    /// The first-order step, DDIM's: keep the predicted clean latents and the predicted noise, change their
    /// amplitudes. Song et al. 2021, equation 12 with eta 0, the noise written as `(x - alpha * x0) / sigma`.
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
