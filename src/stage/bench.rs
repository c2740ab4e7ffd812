//! What a rank has to do its part of a task.

use candle_core::Device;

use crate::base::{Interrupt, Progress};
use crate::train::collective::Collective;

/// Where a rank does its part of a task.
pub struct Bench<'a> {
    /// The device of all tensors.
    pub device: &'a Device,
    /// The processes that train together.
    pub ranks: &'a dyn Collective,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked at safe points for a request to stop.
    pub interrupt: &'a Interrupt,
}
