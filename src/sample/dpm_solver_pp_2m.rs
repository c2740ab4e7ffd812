//! DPM-Solver++(2M). Lu et al. 2022, "DPM-Solver++", algorithm 2 in its midpoint form; the first and the last step are
//! of first order, as in diffusers' `DPMSolverMultistepScheduler` with its defaults.

use super::{Leg, NoiseSchedule, Path, Sampler, Spacing, Weights};

/// The entry in `SAMPLERS`.
pub(super) struct DpmSolverPp2m;

impl Sampler for DpmSolverPp2m {
    fn name(&self) -> &'static str {
        "dpm-solver++-2m"
    }

    fn summary(&self) -> &'static str {
        "DPM-Solver++(2M), second order from the last two predictions (Lu et al. 2022); suitable from about 20 steps"
    }

    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path {
        let (total, offset) = (schedule.train_timesteps(), schedule.steps_offset());
        // All spacings except `trailing` choose one additional timestep and omit the one with the least noise.
        let timesteps = match schedule.spacing_or(Spacing::Linspace) {
            Spacing::Trailing => Spacing::Trailing.timesteps(total, steps, offset),
            spacing => {
                let mut timesteps = spacing.timesteps(total, steps + 1, offset);
                timesteps.truncate(steps);
                timesteps
            }
        };
        let whole: Vec<f64> = timesteps.into_iter().map(f64::round_ties_even).collect();
        Path { legs: Path::chained(schedule, &whole), initial_scale: 1.0 }
    }

    fn weights(&self, legs: &[Leg], index: usize) -> Weights {
        let first_order = Weights::first_order(&legs[index]);
        if index == 0 || index + 1 == legs.len() {
            return first_order;
        }
        // D = x0 + (x0 - previous x0) / 2r, with r = h_previous / h, replaces x0.
        let Leg { from, to, .. } = legs[index];
        let step = to.lambda() - from.lambda();
        let previous_step = from.lambda() - legs[index - 1].from.lambda();
        let slope = 0.5 * step / previous_step * first_order.clean;
        Weights { clean: first_order.clean + slope, previous_clean: -slope, ..first_order }
    }
}
