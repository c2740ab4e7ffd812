//! Gated GELU on the two halves of the last dimension.

use std::f64::consts::{PI, SQRT_2};

use candle_core::{D, Result, Tensor};

use crate::nn::accumulation_dtype;
use crate::nn::operation::{Operation, Output};

/// Operand: x [.., 2n], value and gate -> [.., n].
pub(in crate::nn) struct Geglu;

/// Value and gate, in a type wide enough for exponentials.
fn halves(x: &Tensor) -> Result<[Tensor; 2]> {
    let n = x.dim(D::Minus1)? / 2;
    let wide = |start| x.narrow(D::Minus1, start, n)?.contiguous()?.to_dtype(accumulation_dtype(x.dtype()));
    Ok([wide(0)?, wide(n)?])
}

impl Operation<1> for Geglu {
    fn forward(&self, operands: &[Tensor; 1]) -> Result<Output> {
        let [value, gate] = halves(&operands[0])?;
        Ok(Output::Tensor((value * gate.gelu_erf()?)?.to_dtype(operands[0].dtype())?))
    }

    /// With the normal distribution Phi and its density phi: `gelu'(z) = Phi(z) + z phi(z)`.
    fn backward(
        &self,
        operands: &[Tensor; 1],
        _: &Tensor,
        g: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let [value, gate] = halves(&operands[0])?;
        let g = g.to_dtype(gate.dtype())?;
        let distribution = (((&gate / SQRT_2)?.erf()? + 1.0)? * 0.5)?;
        let density = ((gate.sqr()? * -0.5)?.exp()? * (2.0 * PI).sqrt().recip())?;
        let of_value = ((&gate * &distribution)? * &g)?;
        let of_gate = ((distribution + (gate * density)?)? * (value * g)?)?;
        Ok([Some(Tensor::cat(&[of_value, of_gate], D::Minus1)?)])
    }
}
