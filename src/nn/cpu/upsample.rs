//! Nearest-neighbour upsampling by two: each pixel is repeated four times; backward adds the four gradients.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, filled, for_tracked, operand};

/// x [batch, channels, h, w] -> [batch, channels, 2h, 2w]
pub(in crate::nn) struct Upsample2x;

/// Input rows per task.
const ROWS: usize = 256;

impl CustomOp1 for Upsample2x {
    fn name(&self) -> &'static str {
        "upsample-nearest-2x"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = operand(self.name(), x, layout)?;
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let out = filled(4 * x.len(), |out| {
            let rows = out.par_chunks_mut(4 * width).zip(x.par_chunks(width)).with_min_len(ROWS);
            rows.for_each(|(out, x)| {
                let (first, second) = out.split_at_mut(2 * width);
                for (pair, value) in first.as_chunks_mut::<2>().0.iter_mut().zip(x) {
                    *pair = [*value; 2];
                }
                second.copy_from_slice(first);
            });
        });
        Ok((CpuStorage::F32(out), (batch, channels, 2 * height, 2 * width).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let g = elements(&gradient)?;
        let width = x.dim(3)?;
        for_tracked(x, || {
            filled(g.len() / 4, |out| {
                let rows = out.par_chunks_mut(width).zip(g.par_chunks(4 * width)).with_min_len(ROWS);
                rows.for_each(|(out, g)| {
                    let (first, second) = g.split_at(2 * width);
                    let pairs = first.as_chunks::<2>().0.iter().zip(second.as_chunks::<2>().0);
                    out.iter_mut().zip(pairs).for_each(|(sum, ([a, b], [c, d]))| *sum = (a + b) + (c + d));
                });
            })
        })
    }
}
