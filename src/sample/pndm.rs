//! PLMS, the linear multistep form of PNDM and the original sampler of Stable Diffusion. Liu et al. 2022, "Pseudo
//! Numerical Methods for Diffusion Models on Manifolds", equations 9 and 12; diffusers' `PNDMScheduler` with
//! `skip_prk_steps`.
//!
//! Adams-Bashforth steps on the U-Net's predictions. The first step is taken twice: after a plain step the U-Net is
//! evaluated at its end, and the step is repeated with the mean of both predictions. So `steps` steps take one more
//! evaluation.

use super::{Leg, NoiseSchedule, Path, Sampler, Spacing, Weights};

/// The entry in `SAMPLERS`.
pub(super) struct Pndm;

impl Sampler for Pndm {
    fn name(&self) -> &'static str {
        "pndm"
    }

    fn summary(&self) -> &'static str {
        "PNDM without Runge-Kutta steps, also called PLMS (Liu et al. 2022), SD v1.x's default; one evaluation more"
    }

    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path {
        let spacing = schedule.spacing_or(Spacing::Leading);
        let stride = Path::stride(schedule, steps);
        let mut legs = Path::strided(schedule, spacing, steps, schedule.final_level_or(false));
        if let Some(&second) = legs.get(1) {
            let from = schedule.level(second.timestep + stride);
            legs.insert(1, Leg { from, to: second.from, again: true, ..second });
        }
        Path { legs, initial_scale: 1.0 }
    }

    fn weights(&self, legs: &[Leg], index: usize) -> Weights {
        // The prediction of leg 1 is used only there: later legs skip it and use that of leg 0.
        let predictions: &[f64] = match index {
            0 => &[1.0],
            1 => &[1.0 / 2.0, 1.0 / 2.0],
            2 => &[3.0 / 2.0, 0.0, -1.0 / 2.0],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 0.0, 5.0 / 12.0],
            4 => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, 0.0, -9.0 / 24.0],
            _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        Weights { predictions, ..Weights::first_order(&legs[index]) }
    }
}
