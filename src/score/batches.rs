//! Walks over all calibration points in batches, and over all variants in chunks that fit into memory.

use std::ops::Range;
use std::path::Path;

use super::checkpoint::Sums;
use super::context::ScoringContext;
use super::error::ScoreError;
use super::walk::{Observer, Variant, walk};
use crate::backend::memory;
use crate::data::Calibration;
use crate::model::unet::UNet;

/// Numbers in the states of the variants that may share batches: 64 MB in f32, which are always available.
const TOGETHER: usize = 1 << 24;

/// Sums `measure` over batches of points, beginning after the last one in the checkpoint. `measure` receives the places
/// of the batch among the points.
pub(super) fn in_batches(
    points: &Calibration,
    context: &ScoringContext<'_>,
    path: &Path,
    measure: impl Fn(Range<usize>, &Calibration) -> Result<Vec<(String, Vec<f64>)>, ScoreError>,
) -> Result<Sums, ScoreError> {
    if points.is_empty() {
        return Err(ScoreError::NoPoints);
    }
    let batches = batches(points.len(), context);
    Sums::over(&batches, "points", path, context, |batch| measure(batch.clone(), &points.batch(batch)?))
}

/// The batches of so many points.
pub(super) fn batches(points: usize, context: &ScoringContext<'_>) -> Vec<Range<usize>> {
    let size = context.limits.points.max(1);
    (0..points).step_by(size).map(|start| start..points.min(start + size)).collect()
}

/// Walks once for each chunk of variants: as many as the limit says, or as fit into memory. A chunk ends where a batch of
/// variants ends, so that memory affects the time but not the results.
pub(super) fn walk_in_chunks(
    unet: &UNet,
    batch: &Calibration,
    variants: &[Variant<'_>],
    context: &ScoringContext<'_>,
    observer: &mut impl Chunked,
) -> Result<(), ScoreError> {
    let (points, _, height, width) = batch.sample.dims4()?;
    let state = (unet.inventory().state_elements(height, width) as usize * points).max(1);
    let together = (TOGETHER / state).clamp(1, context.limits.variants.max(1));
    let bytes = (state * unet.dtype().size_in_bytes()) as u64;
    let fitting = usize::try_from(memory::budget(batch.sample.device()) / bytes).unwrap_or(usize::MAX);
    let batches = context.limits.variants.min(fitting) / together;
    let size = batches.max(1) * together;
    for (number, chunk) in variants.chunks(size).enumerate() {
        observer.begin(number * size);
        walk(unet, batch, chunk, together, context.interrupt, observer)?;
    }
    Ok(())
}

/// An observer that learns where in the list of all variants a chunk begins.
pub(super) trait Chunked: Observer {
    fn begin(&mut self, _first: usize) {}
}
