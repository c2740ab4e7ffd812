//! Nearest-neighbour upsampling by two: each pixel is repeated four times; backward adds the four gradients.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

/// x [batch, channels, h, w] -> [batch, channels, 2h, 2w]
pub(in crate::nn) struct Upsample2x;

/// Input rows per task.
const ROWS: usize = 256;

impl Operation<1> for Upsample2x {
    fn forward(&self, [x]: &[Tensor; 1]) -> Result<Output> {
        let (batch, channels, height, width) = x.dims4()?;
        let x = elements(x)?;
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
        Ok(Output::numbers(out, (batch, channels, 2 * height, 2 * width)))
    }

    fn backward(
        &self,
        [x]: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        [of_x]: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let g = elements(gradient)?;
        let width = x.dim(3)?;
        let gradient = gradient_of(x, of_x, || {
            filled(g.len() / 4, |out| {
                let rows = out.par_chunks_mut(width).zip(g.par_chunks(4 * width)).with_min_len(ROWS);
                rows.for_each(|(out, g)| {
                    let (first, second) = g.split_at(2 * width);
                    let pairs = first.as_chunks::<2>().0.iter().zip(second.as_chunks::<2>().0);
                    out.iter_mut().zip(pairs).for_each(|(sum, ([a, b], [c, d]))| *sum = (a + b) + (c + d));
                });
            })
        })?;
        Ok([gradient])
    }
}
