//! What a reconstruction works with.

use std::path::Path;

use crate::base::{Interrupt, Progress};
use crate::data::Calibration;
use crate::model::files::weights::Weights;
use crate::model::network::TailKind;
use crate::model::unet::UNet;

/// What a reconstruction works with.
#[derive(Clone, Copy)]
pub struct Reconstructing<'a> {
    /// The U-Net whose states are the targets.
    pub teacher: &'a UNet,
    /// The one that was pruned from it.
    pub student: &'a UNet,
    /// The student's weights as stored. New ones are rounded to their types.
    pub weights: &'a Weights,
    /// The points.
    pub points: &'a Calibration,
    /// How many of them, at the end, are held out.
    pub held_out: usize,
    /// Points per batch.
    pub batch: usize,
    /// Which layers are solved anew.
    pub kinds: &'a [TailKind],
    /// A folder that survives a crash.
    pub checkpoint: &'a Path,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
}
