//! What a rank has to do its part of a task.

use candle_core::Device;

use crate::base::progress::Silent;
use crate::base::{Interrupt, Progress};
use crate::distill::{Cadence, Easel};
use crate::train::collective::Collective;
use crate::train::watch::{Watcher, Watchers};

/// Where a rank does its part of a task.
pub struct Bench<'a> {
    /// The device of all tensors.
    pub device: &'a Device,
    /// The processes that train together.
    pub ranks: &'a dyn Collective,
    /// When checkpoints are written; the first rank decides.
    pub cadence: Cadence,
    /// Draws the pictures of validations, on the first rank.
    pub easel: Option<&'a Easel<'a>>,
    /// Receives what is measured, on the first rank.
    pub watcher: &'a dyn Watcher,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked at safe points for a request to stop.
    pub interrupt: &'a Interrupt,
}

impl<'a> Bench<'a> {
    /// That of a rank that is not the first, which writes and shows nothing.
    pub fn beside(
        device: &'a Device,
        ranks: &'a dyn Collective,
        watcher: &'a Watchers<'a>,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            device,
            ranks,
            cadence: Cadence::default(),
            easel: None,
            watcher,
            progress: &Silent,
            interrupt,
        }
    }
}
