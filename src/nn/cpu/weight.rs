//! A layer's weights in their stored type. Half precision is widened where a kernel needs it, one task's part or one
//! layer at a time, so a model in half precision takes half the memory. Where the processor multiplies bf16, products
//! of layers take such weights as they are.

use std::ops::Range;

use candle_core::{CpuStorage, Layout, Result, Storage, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::halves::Unit;
use super::scratch;

#[derive(Clone, Copy)]
pub(super) enum Weight<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// Elements widened per task.
const TASK_ELEMENTS: usize = 1 << 16;

impl<'a> Weight<'a> {
    /// The elements of a contiguous tensor.
    pub(super) fn of(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("the weight {:?} is not contiguous", layout.shape())
        };
        match storage {
            Storage::Cpu(CpuStorage::F32(data)) => Ok(Self::F32(&data[start..end])),
            Storage::Cpu(CpuStorage::F16(data)) => Ok(Self::F16(&data[start..end])),
            Storage::Cpu(CpuStorage::BF16(data)) => Ok(Self::Bf16(&data[start..end])),
            _ => bail!("the weight {:?} is not f32, f16 or bf16 on the CPU", layout.shape()),
        }
    }

    /// The bits of weights in bf16, where the processor multiplies them as they are.
    pub(super) fn halves(self) -> Option<(Unit, &'a [u16])> {
        match self {
            Self::Bf16(data) => Some((Unit::detect()?, data.reinterpret_cast())),
            Self::F32(_) | Self::F16(_) => None,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::F16(data) => data.len(),
            Self::Bf16(data) => data.len(),
        }
    }

    /// Lends a part of the weights as f32.
    pub(super) fn lend<R>(self, part: Range<usize>, work: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Self::F32(data) => work(&data[part]),
            _ => scratch(part.len(), |wide| {
                self.widen(part, wide);
                work(wide)
            }),
        }
    }

    /// Lends all weights as f32, widened on all cores.
    pub(super) fn lend_all<R>(self, work: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Self::F32(data) => work(data),
            _ => scratch(self.len(), |wide| {
                wide.par_chunks_mut(TASK_ELEMENTS).enumerate().for_each(|(task, wide)| {
                    let start = task * TASK_ELEMENTS;
                    self.widen(start..start + wide.len(), wide);
                });
                work(wide)
            }),
        }
    }

    fn widen(self, part: Range<usize>, wide: &mut [f32]) {
        match self {
            Self::F32(data) => wide.copy_from_slice(&data[part]),
            Self::F16(data) => data[part].convert_to_f32_slice(wide),
            Self::Bf16(data) => data[part].convert_to_f32_slice(wide),
        }
    }
}
