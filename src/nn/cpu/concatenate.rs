//! Two images with their channels one after the other.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Operands: two tensors [batch, channels, ..] that differ in their channels at most.
pub(in crate::nn) struct Concatenate;

impl Operation<2> for Concatenate {
    fn forward(&self, [a, b]: &[Tensor; 2]) -> Result<Output> {
        let mut shape = a.dims().to_vec();
        shape[1] += b.dim(1)?;
        let batch = shape[0];
        let (a, b) = (elements(a)?, elements(b)?);
        let (of_a, of_b) = (a.len() / batch, b.len() / batch);
        let joined = filled(a.len() + b.len(), |out| {
            let samples = out.par_chunks_mut(of_a + of_b).zip(a.par_chunks(of_a).zip(b.par_chunks(of_b)));
            samples.for_each(|(out, (a, b))| {
                out[..of_a].copy_from_slice(a);
                out[of_a..].copy_from_slice(b);
            });
        });
        Ok(Output::numbers(joined, shape))
    }

    fn backward(
        &self,
        [a, b]: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        [wants_a, wants_b]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let (batch, g) = (a.dim(0)?, elements(gradient)?);
        let (of_a, of_both) = (a.elem_count() / batch, g.len() / batch);
        let part = |start: usize, size: usize| {
            filled(batch * size, |out| {
                let samples = out.par_chunks_mut(size).zip(g.par_chunks(of_both));
                samples.for_each(|(out, g)| out.copy_from_slice(&g[start..start + size]));
            })
        };
        Ok([
            gradient_of(a, wants_a, || part(0, of_a))?,
            gradient_of(b, wants_b, || part(of_a, of_both - of_a))?,
        ])
    }
}
