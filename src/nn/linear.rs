//! Affine map of the last dimension.

use candle_core::{D, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::route::{self, Layer, Route};
use super::{composed, copies, cpu, cuda, operation, or_zeros, widened};

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
        let route = match route::of(Layer::Product, &[x], &[&self.weight]) {
            Route::Cuda => {
                let op = self.on_cuda(x);
                return match &self.bias {
                    Some(bias) => operation::apply3(op, [x, &self.weight, bias]),
                    None => operation::apply2(op, [x, &self.weight]),
                };
            }
            route => route,
        };
        let mut dims = x.dims().to_vec();
        *dims.last_mut().expect("the rank was checked above") = output;
        let rows = x.reshape(((), input))?;
        let bias = or_zeros(&self.bias, &self.weight, x.dtype())?;
        let y = match route {
            Route::Cpu => {
                rows.contiguous()?.apply_op3(&self.weight.contiguous()?, &bias, cpu::linear::Linear)?
            }
            _ => composed::apply3(composed::Linear, [&rows, &self.weight, &bias])?,
        };
        y.reshape(dims)
    }

    /// `residual + forward(x)`, on a GPU in one node of the graph, which keeps no tensor in between. Its gradients need
    /// [`super::backward`].
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let variable = self.bias.as_ref().is_none_or(|bias| bias.is_variable() || !bias.track_op());
        match route::of(Layer::Product, &[x, residual], &[&self.weight]) {
            Route::Cuda if variable => {
                let op = cuda::Onto { linear: self.on_cuda(x), bias: self.bias.clone() };
                self.check(x)?;
                operation::apply3(op, [x, &self.weight, residual])
            }
            _ => residual + self.forward(x)?,
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
