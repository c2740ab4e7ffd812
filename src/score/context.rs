//! What long measurements run with.

use std::ops::Range;
use std::path::Path;

use crate::base::{Interrupt, Progress};

/// Batch sizes. They affect memory and speed; results depend on them only by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calibration points per batch.
    pub points: usize,
    /// Variants per traversal, beside the teacher; fewer if memory is short, with the same results.
    pub variants: usize,
}

impl Limits {
    /// Enough to keep two cores or a GPU busy.
    pub const POINTS: u32 = 8;
    /// As many as a small U-Net has units.
    pub const VARIANTS: u32 = 64;
}

impl Default for Limits {
    fn default() -> Self {
        Self { points: Self::POINTS as usize, variants: Self::VARIANTS as usize }
    }
}

/// What a long measurement runs with.
#[derive(Clone, Copy)]
pub struct ScoringContext<'a> {
    /// Batch sizes.
    pub limits: Limits,
    /// By what the squared differences of each point's predictions are multiplied: see [`Space`](super::Space). None for 1.
    pub weights: Option<&'a [f64]>,
    /// A folder that survives a crash.
    pub checkpoint: &'a Path,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
}

impl<'a> ScoringContext<'a> {
    /// The weights of some of the points.
    pub(super) fn weights_of(&self, places: &Range<usize>) -> Option<&'a [f64]> {
        self.weights.map(|weights| &weights[places.clone()])
    }
}
