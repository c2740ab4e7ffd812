//! Affine map of the last dimension.

use candle_core::{D, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::route::{self, Layer, Route};
use super::{add, composed, copies, cpu, cuda, geglu, operation, or_zeros, widened};

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
        let bias = if bias { Some(widened(&vb, output, "bias")?) } else { None };
        Ok(Self { weight, bias })
    }

    /// [.., in] -> [.., out].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (input, output) = self.check(x)?;
        let operands = |bias| [x, &self.weight, bias];
        match (route::of(Layer::Product, &[x], &[&self.weight]), &self.bias) {
            (Route::Cuda, Some(bias)) => operation::apply(self.on_cuda(x), operands(bias)),
            (Route::Cuda, None) => operation::apply(self.on_cuda(x), [x, &self.weight]),
            (Route::Cpu, bias) => {
                let bias = or_zeros(bias, &self.weight, x.dtype())?;
                operation::apply(cpu::linear::Linear, operands(&bias))
            }
            (Route::Composed, bias) => {
                let mut dims = x.dims().to_vec();
                *dims.last_mut().expect("the rank was checked above") = output;
                let bias = or_zeros(bias, &self.weight, x.dtype())?;
                let rows = operation::reshape(x, (x.elem_count() / input, input))?;
                composed::apply("linear", composed::Linear, [&rows, &self.weight, &bias])?.reshape(dims)
            }
        }
    }

    /// `residual + forward(x)`, on a GPU in one operation, which keeps no tensor in between.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match (route::of(Layer::Product, &[x, residual], &[&self.weight]), &self.bias) {
            (Route::Cuda, Some(bias)) => {
                self.check(x)?;
                operation::apply(cuda::Onto(self.on_cuda(x)), [x, &self.weight, bias, residual])
            }
            _ => add(residual, &self.forward(x)?),
        }
    }

    /// `residual + forward(geglu(x))`, on a GPU in one operation, which does not keep what the gated GELU gives.
    pub fn forward_gated_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match (route::of(Layer::Product, &[x, residual], &[&self.weight]), &self.bias) {
            (Route::Cuda, Some(bias)) if x.dim(D::Minus1)? == 2 * self.weight.dim(1)? => {
                operation::apply(cuda::GatedOnto(self.on_cuda(x)), [x, &self.weight, bias, residual])
            }
            _ => self.forward_onto(&geglu(x)?, residual),
        }
    }

    fn on_cuda(&self, x: &Tensor) -> cuda::Linear {
        cuda::Linear { copy: copies::of(&self.weight).filter(|copy| copy.dtype() == x.dtype()) }
    }

    /// Fails if the weight does not fit x. Gives the sizes of input and output.
    fn check(&self, x: &Tensor) -> Result<(usize, usize)> {
        let (output, input) = self.weight.dims2()?;
        if x.rank() == 0 || x.dim(D::Minus1)? != input {
            bail!(
                "linear: weight {:?} needs a last dimension of {input}, found {:?}",
                self.weight.dims(),
                x.dims()
            )
        }
        Ok((input, output))
    }
}
