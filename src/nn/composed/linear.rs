//! `x W^T + b` as matrix products, with the weight converted to the type of x.

use candle_core::{Result, Tensor};

use super::Composed;
use crate::nn::accumulation_dtype;

/// Operands: x [rows, in], weight [out, in], bias `[out]`.
pub(in crate::nn) struct Linear;

impl Composed<3> for Linear {
    const NAME: &'static str = "linear";

    fn forward(&self, operands: &[Tensor; 3]) -> Result<Tensor> {
        let [x, weight, bias] = operands;
        let weight = weight.to_dtype(x.dtype())?;
        x.matmul(&weight.t()?)?.broadcast_add(&bias.to_dtype(x.dtype())?)
    }

    fn backward(
        &self,
        operands: &[Tensor; 3],
        _: &Tensor,
        g: &Tensor,
        wanted: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let [x, weight, _] = operands;
        Ok([
            wanted[0].then(|| g.matmul(&weight.to_dtype(g.dtype())?.contiguous()?)).transpose()?,
            wanted[1].then(|| g.t()?.matmul(&x.contiguous()?)).transpose()?,
            wanted[2].then(|| g.to_dtype(accumulation_dtype(g.dtype()))?.sum(0)).transpose()?,
        ])
    }
}
