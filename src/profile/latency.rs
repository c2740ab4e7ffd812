//! `latency.json`: how long each unit takes in a forward pass on this device.
//!
//! The pass is timed step by step. The time of a unit is the time that its removal saves: that of its steps, minus that
//! of the learned shortcut that remains. Measurements are not reproducible.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::ProfileError;
use super::pass::{Pass, WARM_UP};
use crate::base::{Interrupt, Progress, UnitId, files, median};
use crate::model::network::Unit;
use crate::model::unet::{Probe, UNet};

/// The version of `latency.json` that this program writes and reads.
const FORMAT: u32 = 1;
const FILE: &str = "latency.json";

/// The seconds of one forward pass, for each unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Version of the file's layout.
    format: u32,
    /// Number of samples in the timed batch.
    pub batch: usize,
    /// Height and width of its latents.
    pub latent_size: (usize, usize),
    /// Seconds of the complete pass.
    pub total_seconds: f64,
    /// Seconds of each removable unit of every granularity.
    units: BTreeMap<UnitId, f64>,
}

impl Latency {
    /// A table from known times.
    pub fn new(
        batch: usize,
        latent_size: (usize, usize),
        total_seconds: f64,
        units: BTreeMap<UnitId, f64>,
    ) -> Self {
        Self { format: FORMAT, batch, latent_size, total_seconds, units }
    }

    /// Times `repetitions` passes over random latents of the U-Net's own size, and uses the median of each step.
    pub fn measure(
        unet: &UNet,
        batch: usize,
        repetitions: usize,
        device: &candle_core::Device,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Self, ProfileError> {
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
        let median_of =
            |seconds: &dyn Fn(&Pass) -> f64| median(&passes.iter().map(seconds).collect::<Vec<_>>());
        let steps = unet.steps().len();
        let with: Vec<_> = (0..steps).map(|step| median_of(&|pass| pass.with[step])).collect();
        let without: Vec<_> = (0..steps).map(|step| median_of(&|pass| pass.without[step])).collect();
        let seconds = |unit: &Unit| {
            let saved: f64 = unit.steps.clone().map(|step| with[step]).sum();
            let left = if unit.has_shortcut { without[unit.steps.start] } else { 0.0 };
            (unit.id.clone(), (saved - left).max(0.0))
        };
        let total_seconds = with.iter().sum::<f64>() + median_of(&|pass| pass.condition);
        let units = unet.inventory().removable().iter().map(seconds).collect();
        Ok(Self::new(batch, latent_size, total_seconds, units))
    }

    /// The seconds that removing a unit saves.
    pub fn seconds(&self, unit: &UnitId) -> Option<f64> {
        self.units.get(unit).copied()
    }

    /// Reads `latency.json` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::read_json_of(&folder.join(FILE), FORMAT, |latency: &Self| latency.format)
    }

    /// Writes it to `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }
}
