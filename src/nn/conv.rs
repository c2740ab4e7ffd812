//! Two-dimensional convolution.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::route::{self, Layer, Route};
use super::{composed, cpu, cuda, image, operation, or_zeros, upsample_nearest_2x, widened};

/// A convolution with one square kernel, stride and zero padding.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// [out, in, kernel, kernel]
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
    /// Step of the kernel in both directions.
    pub stride: usize,
    /// Zeros added on each of the four sides.
    pub padding: usize,
}

impl Conv2d {
    /// Reads `weight` [output, input, kernel, kernel] and `bias` `[output]`.
    pub fn new(
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let bias = Some(widened(&vb, output, "bias")?);
        Ok(Self { bias, ..Self::without_bias(input, output, kernel, stride, padding, vb)? })
    }

    /// Reads only `weight`; CLIP's patch embedding has no bias.
    pub fn without_bias(
        input: usize,
        output: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let weight = vb.get((output, input, kernel, kernel), "weight")?;
        Ok(Self { weight, bias: None, stride, padding })
    }

    /// An image of `in` channels -> one of `out` channels, h' = (h + 2 padding - kernel) / stride + 1.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x, 1)?;
        match route::of(Layer::Product, &[x], &[&self.weight]) {
            Route::Cpu => self.fused(x, false),
            Route::Cuda => self.by_columns(x, self.bias.as_ref(), false),
            Route::Composed => {
                let op = composed::Conv2d::new(self.stride, self.padding);
                let bias = or_zeros(&self.bias, &self.weight, x.dtype())?;
                image::begin(&composed::apply("conv2d", op, [&image::end(x)?, &self.weight, &bias])?)
            }
        }
    }

    /// `forward(x)` plus `shift` [batch, out] at every pixel.
    pub fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        match (route::of(Layer::Product, &[x], &[&self.weight]), &self.bias) {
            (Route::Cuda, Some(bias)) => {
                self.check(x, 1)?;
                self.by_columns(x, Some(&shift.to_dtype(bias.dtype())?.broadcast_add(bias)?), false)
            }
            _ => image::shift(&self.forward(x)?, shift),
        }
    }

    /// `forward(upsample_nearest_2x(x))`, without materialising the upsampled input where there are kernels for it: for a 3x3
    /// kernel with padding 1.
    pub fn forward_upsampled(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x, 2)?;
        let keeps_size = [self.weight.dim(2)?, self.stride, self.padding] == [3, 1, 1];
        match route::of(Layer::Product, &[x], &[&self.weight]) {
            Route::Cpu if keeps_size => self.fused(x, true),
            Route::Cuda => self.by_columns(x, self.bias.as_ref(), true),
            _ => self.forward(&upsample_nearest_2x(x)?),
        }
    }

    fn fused(&self, x: &Tensor, upsampled: bool) -> Result<Tensor> {
        let op = cpu::conv::Conv2d { stride: self.stride, padding: self.padding, upsampled };
        let bias = or_zeros(&self.bias, &self.weight, x.dtype())?;
        operation::apply(op, [x, &self.weight, &bias])
    }

    fn by_columns(&self, x: &Tensor, bias: Option<&Tensor>, upsampled: bool) -> Result<Tensor> {
        let op = cuda::Conv2d::new(self.stride, self.padding, upsampled);
        match bias {
            Some(bias) => operation::apply(op, [x, &self.weight, bias]),
            None => operation::apply(op, [x, &self.weight]),
        }
    }

    /// Fails if the weight does not fit x, upsampled by `scale`.
    fn check(&self, x: &Tensor, scale: usize) -> Result<()> {
        let (_, channels, height, width) = image::size(x)?;
        let (_, input, kernel, _) = self.weight.dims4()?;
        if channels != input {
            bail!(
                "conv2d: weight {:?} needs {input} channels, found input {:?}",
                self.weight.dims(),
                x.dims()
            )
        }
        if scale * height.min(width) + 2 * self.padding < kernel || self.stride == 0 {
            bail!(
                "conv2d: weight {:?} with padding {} and stride {} does not fit input {:?}",
                self.weight.dims(),
                self.padding,
                self.stride,
                x.dims()
            )
        }
        Ok(())
    }
}
