//! Affine map of the last dimension.

use candle_core::{D, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::{composed, cpu, or_zeros, pointwise};

/// `x W^T + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// [out, in]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` [output, input] and, if `bias` is set, `bias` `[output]`.
    pub fn new(input: usize, output: usize, bias: bool, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get((output, input), "weight")?;
        let bias = if bias { Some(pointwise(&vb, output, "bias")?) } else { None };
        Ok(Self { weight, bias })
    }

    /// [.., in] -> [.., out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (output, input) = self.weight.dims2()?;
        if x.rank() == 0 || x.dim(D::Minus1)? != input {
            bail!(
                "linear: weight {:?} needs a last dimension of {input}, found {:?}",
                self.weight.dims(),
                x.dims()
            )
        }
        let mut dims = x.dims().to_vec();
        *dims.last_mut().expect("the rank was checked above") = output;
        let rows = x.reshape(((), input))?;
        let bias = or_zeros(&self.bias, &self.weight, x.dtype())?;
        let y = if cpu::serves_weighted(x, &self.weight) {
            rows.contiguous()?.apply_op3(&self.weight.contiguous()?, &bias, cpu::linear::Linear)?
        } else {
            composed::apply3(composed::Linear, [&rows, &self.weight, &bias])?
        };
        y.reshape(dims)
    }
}
