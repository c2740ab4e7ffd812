//! Group and layer normalisation, computed in full precision regardless of the operands' dtype.

use candle_core::{D, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::route::{self, Layer, Route};
use super::{composed, cpu, cuda, image, operation, widened};

/// Normalises each group of channels of each sample over its elements (Wu and He 2018).
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Tensor,
    /// `[channels]`
    pub bias: Tensor,
    /// Number of groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias`, both `[channels]`.
    pub fn new(channels: usize, groups: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            bail!("group norm `{}`: {groups} groups do not divide {channels} channels", vb.prefix())
        }
        Ok(Self {
            weight: widened(&vb, channels, "weight")?,
            bias: widened(&vb, channels, "bias")?,
            groups,
            eps,
        })
    }

    /// An image, or [batch, channels, ..] -> the same shape. On a GPU the channels are last.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, false)
    }

    /// `silu(forward(x))`, in one pass on devices that support it.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, true)
    }

    fn apply(&self, x: &Tensor, with_silu: bool) -> Result<Tensor> {
        let channels = self.weight.dim(0)?;
        if x.rank() < 2 || x.dim(image::channel(x))? != channels {
            bail!(
                "group norm: weight {:?} needs [batch, {channels}, ..], found {:?}",
                self.weight.dims(),
                x.dims()
            )
        }
        match route::of(Layer::Norm, &[x], &[&self.weight, &self.bias]) {
            Route::Cpu => {
                let op = cpu::group_norm::GroupNorm::new(self.groups, self.eps as f32, with_silu);
                operation::apply(op, [x, &self.weight, &self.bias])
            }
            Route::Cuda => {
                let rows = cuda::Rows::Groups { groups: self.groups, silu: with_silu };
                let op = cuda::Normalise::new(rows, self.eps);
                operation::apply(op, [x, &self.weight, &self.bias])
            }
            Route::Composed => {
                let op = composed::Norm { groups: Some(self.groups), eps: self.eps, silu: with_silu };
                let channel = image::channel(x);
                let first = if channel == 1 { x.clone() } else { x.transpose(1, channel)? };
                let y = composed::apply("norm", op, [&first, &self.weight, &self.bias])?;
                if channel == 1 { Ok(y) } else { y.transpose(1, channel)?.contiguous() }
            }
        }
    }
}

/// Normalises the last dimension (Ba et al. 2016).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[size]`
    pub weight: Tensor,
    /// `[size]`
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[size]`.
    pub fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(Self { weight: widened(&vb, size, "weight")?, bias: widened(&vb, size, "bias")?, eps })
    }

    /// [.., size] -> the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let size = self.weight.dim(0)?;
        if x.rank() == 0 || x.dim(D::Minus1)? != size {
            bail!("layer norm: weight {:?} needs [.., {size}], found {:?}", self.weight.dims(), x.dims())
        }
        let operands = [x, &self.weight, &self.bias];
        match route::of(Layer::Norm, &[x], &[&self.weight, &self.bias]) {
            Route::Cpu => {
                let op = cpu::layer_norm::LayerNorm::new(self.eps as f32);
                operation::apply(op, [x, &self.weight, &self.bias])
            }
            Route::Cuda => operation::apply(cuda::Normalise::new(cuda::Rows::Last, self.eps), operands),
            Route::Composed => {
                let op = composed::Norm { groups: None, eps: self.eps, silu: false };
                composed::apply("norm", op, operands)
            }
        }
    }
}
