//! Launches the optimiser: AdamW, moving average and half-precision copy of all tensors at once.

use bytemuck::{Pod, Zeroable};
use candle_core::Result;

use super::launch::{Launch, Launcher, Pointer};
use crate::nn::cpu::adamw::Step;

/// A row of the table on the device, as in `optimiser.cu`. Addresses are 0 where there is nothing.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(in crate::nn) struct TrainedTensor {
    pub(in crate::nn) parameter: u64,
    pub(in crate::nn) gradient: u64,
    /// Numbers, or codes if there are scales.
    pub(in crate::nn) first_moment: u64,
    pub(in crate::nn) second_moment: u64,
    pub(in crate::nn) first_scales: u64,
    pub(in crate::nn) second_scales: u64,
    pub(in crate::nn) average: u64,
    /// The copy in bf16.
    pub(in crate::nn) half: u64,
    /// Filled in by [`Table::new`].
    pub(in crate::nn) first_block: i64,
    pub(in crate::nn) elements: i64,
}

/// The tensors of one optimiser, to be copied to the device.
#[derive(Debug)]
pub(in crate::nn) struct Table {
    pub(in crate::nn) rows: Vec<TrainedTensor>,
    blocks: usize,
}

/// Elements per block.
const CHUNK: i64 = 1 << 14;
const THREADS: u32 = 256;
/// Room for a sum of each warp in f64.
const SCRATCH_BYTES: usize = THREADS as usize / 32 * size_of::<f64>();

impl Table {
    /// Gives each tensor its blocks.
    pub(in crate::nn) fn new(mut rows: Vec<TrainedTensor>) -> Self {
        let mut blocks = 0;
        for row in &mut rows {
            row.first_block = blocks;
            blocks += (row.elements + CHUNK - 1) / CHUNK;
        }
        Self { rows, blocks: blocks as usize }
    }

    /// Bytes that are moved if `of_each` gives those per element.
    fn bytes(&self, of_each: impl Fn(&TrainedTensor) -> i64) -> usize {
        self.rows.iter().map(|row| row.elements * of_each(row)).sum::<i64>() as usize
    }

    /// Elements of `partial` in [`Self::norm_and_clip`], in f64.
    pub(in crate::nn) fn partial(&self) -> usize {
        self.blocks
    }

    /// Writes the norm of all gradients, and the factor that limits it to `largest`, to the two f32 of `norm`.
    pub(in crate::nn) fn norm_and_clip(
        &self,
        launcher: &dyn Launcher,
        table: Pointer,
        largest: f32,
        [partial, norm]: [Pointer; 2],
    ) -> Result<()> {
        Launch::new("optimiser_squared_norms", [self.blocks, 1, 1], THREADS)
            .moving(self.bytes(|row| 4 * i64::from(row.gradient != 0)))
            .shared(SCRATCH_BYTES)
            .pointers([table])
            .sizes([self.rows.len()])
            .pointers([partial])
            .run(launcher)?;
        Launch::new("optimiser_norm_and_clip", [1, 1, 1], THREADS)
            .shared(SCRATCH_BYTES)
            .pointers([partial])
            .sizes([self.blocks])
            .numbers([largest])
            .pointers([norm])
            .run(launcher)
    }

    /// Updates everything in place, with the gradients times the second number of `norm`; the scale in `step` is not
    /// used. `approach` is 1 minus the decay of the average.
    pub(in crate::nn) fn adamw(
        &self,
        launcher: &dyn Launcher,
        table: Pointer,
        norm: Pointer,
        step: &Step,
        approach: f32,
    ) -> Result<()> {
        let (rest1, rest2) = step.rest;
        let of_each = |row: &TrainedTensor| {
            let average = if row.average == 0 { 0 } else { 8 };
            let half = if row.half == 0 { 0 } else { 2 };
            let moments = if row.first_scales == 0 { 16 } else { 4 };
            // Gradient, and both moments and the parameter there and back.
            if row.gradient == 0 { average + 4 } else { average + half + moments + 12 }
        };
        Launch::new("optimiser_adamw", [self.blocks, 1, 1], THREADS)
            .moving(self.bytes(of_each))
            .pointers([table])
            .sizes([self.rows.len()])
            .pointers([norm])
            .numbers([step.beta1, step.beta2, rest1, rest2, step.keep, step.rate])
            .numbers([step.root_correction, step.eps, approach])
            .run(launcher)
    }
}
