//! Ancestral Euler steps: an Euler step to a lower noise level than the target, then fresh noise up to the target.
//! `sample_euler_ancestral` of Katherine Crowson's k-diffusion with eta 1, as diffusers'
//! `EulerAncestralDiscreteScheduler`.
//!
//! There, with s for sigma/alpha, the step ends at `s_down = s_to² / s_from` and `s_up = sqrt(s_to² - s_down²)` is
//! added. On latents of unit variance both are fractions of the target sigma: r and sqrt(1 - r²), with r = s_to /
//! s_from.

use super::euler::Euler;
use super::{Leg, Level, NoiseSchedule, Path, Sampler, Weights};

/// The entry in `SAMPLERS`.
pub(super) struct EulerAncestral;

impl Sampler for EulerAncestral {
    fn name(&self) -> &'static str {
        "euler-ancestral"
    }

    fn summary(&self) -> &'static str {
        "Euler steps with fresh noise after each (Crowson's k-diffusion); does not converge as the number of steps grows"
    }

    fn path(&self, schedule: &NoiseSchedule, steps: usize) -> Path {
        Euler.path(schedule, steps)
    }

    fn weights(&self, legs: &[Leg], index: usize) -> Weights {
        let leg = legs[index];
        let Level { alpha, sigma } = leg.to;
        let kept = leg.to.ratio() / leg.from.ratio();
        let down = Leg { to: Level { alpha, sigma: sigma * kept }, ..leg };
        // Rounding can make the ratio of a step between equal levels slightly larger than 1.
        let noise = sigma * (1.0 - kept * kept).max(0.0).sqrt();
        Weights { noise, ..Weights::first_order(&down) }
    }
}
