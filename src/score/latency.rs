//! `latency.json`: how long each unit takes in a forward pass on this device, for selections under a latency budget.
//!
//! The pass is timed step by step, so a unit's time is what goes when it goes: the steps that it has, less the learned
//! shortcut that stays. It is a measurement of one machine on one day, and a new one differs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::ScoreError;
use crate::base::{Interrupt, Progress, UnitId, files};
use crate::model::unet::{Probe, UNet};

/// The version of `latency.json` that this program writes and reads.
const FORMAT: u32 = 1;
const FILE: &str = "latency.json";
/// Passes that are not counted: the first ones fill caches and compile kernels.
const WARM_UP: usize = 2;

/// Seconds of one forward pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Version of the file's layout.
    format: u32,
    /// Samples in the batch that was timed.
    pub batch: usize,
    /// Height and width of its latents.
    pub latent_size: (usize, usize),
    /// The whole pass.
    pub total_seconds: f64,
    /// What everything that can go takes of it, of any granularity.
    units: BTreeMap<UnitId, f64>,
}

impl Latency {
    /// A table of known times.
    pub fn new(
        batch: usize,
        latent_size: (usize, usize),
        total_seconds: f64,
        units: BTreeMap<UnitId, f64>,
    ) -> Self {
        Self { format: FORMAT, batch, latent_size, total_seconds, units }
    }

    /// Times `repetitions` passes over random latents of the U-Net's own size and takes the median of each step.
    pub fn measure(
        unet: &UNet,
        batch: usize,
        repetitions: usize,
        device: &candle_core::Device,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Self, ScoreError> {
        let latent_size = unet.config().sample_size;
        let probe = Probe::new(unet.config(), batch, latent_size, device)?;
        progress.length(repetitions as u64, "passes");
        let mut passes = Vec::with_capacity(repetitions);
        for pass in 0..WARM_UP + repetitions {
            interrupt.check()?;
            let timed = Pass::time(unet, &probe)?;
            if pass >= WARM_UP {
                passes.push(timed);
                progress.position(passes.len() as u64);
            }
        }
        let steps = unet.steps().len();
        let with: Vec<_> = (0..steps).map(|step| median(passes.iter().map(|pass| pass.with[step]))).collect();
        let without: Vec<_> =
            (0..steps).map(|step| median(passes.iter().map(|pass| pass.without[step]))).collect();
        let seconds = |unit: &crate::model::network::Unit| {
            let saved: f64 = unit.steps.clone().map(|step| with[step]).sum();
            let left = if unit.has_shortcut { without[unit.steps.start] } else { 0.0 };
            (unit.id.clone(), (saved - left).max(0.0))
        };
        let total_seconds = with.iter().sum::<f64>() + median(passes.iter().map(|pass| pass.condition));
        let units = unet.inventory().removable().iter().map(seconds).collect();
        Ok(Self::new(batch, latent_size, total_seconds, units))
    }

    /// Seconds that go with a unit.
    pub fn seconds(&self, unit: &UnitId) -> Option<f64> {
        self.units.get(unit).copied()
    }

    /// Reads `latency.json` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::read_json_of(&folder.join(FILE), FORMAT, |latency: &Self| latency.format)
    }

    /// Writes it into `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }
}

/// Seconds of one pass.
struct Pass {
    /// Of the time and text embeddings.
    condition: f64,
    /// Of each step.
    with: Vec<f64>,
    /// Of what is left of each step without its branch.
    without: Vec<f64>,
}

impl Pass {
    fn time(unet: &UNet, probe: &Probe) -> candle_core::Result<Self> {
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

/// The upper of the middle values where their number is even; zero of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
