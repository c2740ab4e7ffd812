//! `x W^T + b` as matrix products, with the weight converted to the type of x.

use candle_core::{Result, Tensor};

use crate::nn::accumulation_dtype;
use crate::nn::operation::{Operation, Output};

/// Operands: x [rows, in], weight [out, in], bias `[out]`.
pub(in crate::nn) struct Linear;

impl Operation<3> for Linear {
    fn forward(&self, operands: &[Tensor; 3]) -> Result<Output> {
        let [x, weight, bias] = operands;
        let weight = weight.to_dtype(x.dtype())?;
        Ok(Output::Tensor(x.matmul(&weight.t()?)?.broadcast_add(&bias.to_dtype(x.dtype())?)?))
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
