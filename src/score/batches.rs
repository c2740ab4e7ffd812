//! Walks over all calibration points in batches, and over all variants in chunks that fit into memory.

use std::ops::Range;
use std::path::Path;

use super::checkpoint::Sums;
use super::context::ScoringContext;
use super::error::ScoreError;
use super::walk::{Observer, Variant, walk};
use crate::backend::{DeviceClass, memory};
use crate::data::Calibration;
use crate::model::unet::UNet;

/// Numbers in the states of the variants that may share batches. On a CPU 64 MB in f32, which are always available.
const TOGETHER_ON_CPU: usize = 1 << 24;
/// On a GPU 4 GB in half precision: with one variant of SDXL at a time, launching kernels takes longer than the kernels. It
/// does not depend on the card's memory, because batches affect rounding.
const TOGETHER_ON_GPU: usize = 1 << 31;

/// How many variants may share a batch. `state` is the number of elements in the states of one.
fn together(state: usize, class: DeviceClass, most: usize) -> usize {
    let elements = match class {
        DeviceClass::Cpu => TOGETHER_ON_CPU,
        DeviceClass::Cuda | DeviceClass::CudaTf32 => TOGETHER_ON_GPU,
    };
    (elements / state.max(1)).clamp(1, most.max(1))
}

/// Sums `measure` over batches of points, beginning after the last one in the checkpoint. `measure` receives the places
/// of the batch among the points, and the batch on the device of `unet`.
pub(super) fn in_batches(
    unet: &UNet,
    points: &Calibration,
    context: &ScoringContext<'_>,
    path: &Path,
    measure: impl Fn(Range<usize>, &Calibration) -> Result<Vec<(String, Vec<f64>)>, ScoreError>,
) -> Result<Sums, ScoreError> {
    if points.is_empty() {
        return Err(ScoreError::NoPoints);
    }
    let batches = batches(points.len(), context);
    Sums::over(&batches, "points", path, context, |batch| {
        measure(batch.clone(), &points.batch_on(batch, unet.device())?)
    })
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
    let device = batch.sample.device();
    let together = together(state, DeviceClass::of(device), context.limits.variants);
    let bytes = (state * unet.dtype().size_in_bytes()) as u64;
    let fitting = usize::try_from(memory::budget(device) / bytes).unwrap_or(usize::MAX);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_takes_more_variants_together_than_a_cpu() {
        // SDXL at 128x128 with 8 points: about 10^8 numbers per variant.
        let state = 100_000_000;
        assert_eq!(together(state, DeviceClass::Cpu, 64), 1);
        assert_eq!(together(state, DeviceClass::Cuda, 64), 21);
        assert_eq!(together(1000, DeviceClass::Cuda, 64), 64);
        assert_eq!(together(usize::MAX, DeviceClass::Cuda, 0), 1);
    }
}
