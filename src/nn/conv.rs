//! Two-dimensional convolution.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::{composed, cpu, or_zeros, pointwise, upsample_nearest_2x};

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
        let bias = Some(pointwise(&vb, output, "bias")?);
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

    /// [batch, in, h, w] -> [batch, out, h', w'] with h' = (h + 2 padding - kernel) / stride + 1.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x, 1)?;
        if cpu::serves_weighted(x, &self.weight) {
            return self.fused(x, false);
        }
        let op = composed::Conv2d::new(self.stride, self.padding);
        composed::apply3(op, [x, &self.weight, &or_zeros(&self.bias, &self.weight, x.dtype())?])
    }

    /// `forward(upsample_nearest_2x(x))`, on the CPU without materialising the upsampled input: [batch, in, h, w] ->
    /// [batch, out, 2h, 2w] for a 3x3 kernel with padding 1.
    pub fn forward_upsampled(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x, 2)?;
        let keeps_size = [self.weight.dim(2)?, self.stride, self.padding] == [3, 1, 1];
        if keeps_size && cpu::serves_weighted(x, &self.weight) {
            self.fused(x, true)
        } else {
            self.forward(&upsample_nearest_2x(x)?)
        }
    }

    fn fused(&self, x: &Tensor, upsampled: bool) -> Result<Tensor> {
        let op = cpu::conv::Conv2d { stride: self.stride, padding: self.padding, upsampled };
        let bias = or_zeros(&self.bias, &self.weight, x.dtype())?;
        x.contiguous()?.apply_op3(&self.weight.contiguous()?, &bias, op)
    }

    /// Fails if the weight does not fit x, upsampled by `scale`.
    fn check(&self, x: &Tensor, scale: usize) -> Result<()> {
        let (_, channels, height, width) = x.dims4()?;
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
