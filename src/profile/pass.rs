//! One timed forward pass, step by step.

use std::time::Instant;

use crate::model::unet::{Probe, UNet};

/// Number of warm-up passes, which fill caches and compile kernels.
pub(crate) const WARM_UP: usize = 2;

/// The seconds of one pass.
pub(super) struct Pass {
    /// For the embedding of time and text.
    pub(super) condition: f64,
    /// For each step.
    pub(super) with: Vec<f64>,
    /// For the part of each step that remains without its branch.
    pub(super) without: Vec<f64>,
}

impl Pass {
    /// Runs and times one pass.
    pub(super) fn time(unet: &UNet, probe: &Probe) -> candle_core::Result<Self> {
        let device = probe.sample.device();
        let begun = Instant::now();
        let condition = unet.condition(&probe.timestep, &probe.conditioning)?;
        device.synchronize()?;
        let mut pass =
            Self { condition: begun.elapsed().as_secs_f64(), with: Vec::new(), without: Vec::new() };
        let mut state = unet.begin(&probe.sample)?;
        for step in unet.steps() {
            let step = step?;
            let mut bypassed = state.clone();
            let begun = Instant::now();
            step.bypass(&mut bypassed)?;
            device.synchronize()?;
            let between = Instant::now();
            step.advance(&mut state, &condition)?;
            device.synchronize()?;
            pass.with.push(between.elapsed().as_secs_f64());
            pass.without.push(between.duration_since(begun).as_secs_f64());
        }
        Ok(pass)
    }
}
