//! Sums of two tensors, and of an image and one number per channel.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Elements per task.
const TASK_ELEMENTS: usize = 1 << 15;

/// `a + b`, of the same shape.
pub(in crate::nn) fn sum(a: &Tensor, b: &Tensor) -> Result<Output> {
    let (shape, a, b) = (a.shape(), elements(a)?, elements(b)?);
    let sum = filled(a.len(), |out| {
        let operands = a.par_chunks(TASK_ELEMENTS).zip(b.par_chunks(TASK_ELEMENTS));
        out.par_chunks_mut(TASK_ELEMENTS).zip(operands).for_each(|(out, (a, b))| {
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum = a + b);
        });
    });
    Ok(Output::numbers(sum, shape))
}

/// Operands: x [batch, channels, ..], and [batch, channels], which is added to each pixel of x.
pub(in crate::nn) struct Shift;

impl Operation<2> for Shift {
    fn forward(&self, [x, shift]: &[Tensor; 2]) -> Result<Output> {
        let (shape, x, shift) = (x.shape(), elements(x)?, elements(shift)?);
        let plane = (x.len() / shift.len()).max(1);
        let sum = filled(x.len(), |out| {
            let planes = out.par_chunks_mut(plane).zip(x.par_chunks(plane)).zip(&shift[..]);
            planes.with_min_len(TASK_ELEMENTS.div_ceil(plane)).for_each(|((out, x), shift)| {
                out.iter_mut().zip(x).for_each(|(sum, x)| *sum = x + shift);
            });
        });
        Ok(Output::numbers(sum, shape))
    }

    fn backward(
        &self,
        [_, shift]: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_shift]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let g = elements(gradient)?;
        let plane = (g.len() / shift.elem_count()).max(1);
        let of_shift = gradient_of(shift, of_shift, || {
            let planes = g.par_chunks(plane).with_min_len(TASK_ELEMENTS.div_ceil(plane));
            planes.map(|plane| plane.iter().map(|g| f64::from(*g)).sum::<f64>() as f32).collect()
        })?;
        Ok([of_x.then(|| gradient.clone()), of_shift])
    }
}
