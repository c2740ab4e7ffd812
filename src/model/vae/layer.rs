//! One half of an autoencoder as a list of layers.

use candle_core::{Result, Tensor};

use super::blocks::{AttentionBlock, TinyBlock};
use crate::model::blocks::ResnetBlock;
use crate::nn::{Conv2d, GroupNorm, image};

/// One step of a half. The last four are those of `AutoencoderTiny` alone.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    Conv(Conv2d),
    Resnet(Box<ResnetBlock>),
    Attention(AttentionBlock),
    Downsample(Conv2d),
    Upsample(Conv2d),
    Out(GroupNorm, Conv2d),
    Tiny(TinyBlock),
    Relu,
    /// x * a + b
    Affine(f64, f64),
    /// a * tanh(x / a)
    SoftClamp(f64),
}

/// Applies the layers in their order to x [b, c, h, w].
pub(super) fn walk(layers: &[Layer], x: &Tensor) -> Result<Tensor> {
    let y = layers.iter().try_fold(image::begin(x)?, |x, layer| match layer {
        Layer::Conv(conv) => conv.forward(&x),
        Layer::Resnet(block) => block.forward(&x, None),
        Layer::Attention(block) => block.forward(&x),
        // One zero row and column, only at the end, unlike in a U-Net.
        Layer::Downsample(conv) => conv.forward(&image::pad_end(&x)?),
        Layer::Upsample(conv) => conv.forward_upsampled(&x),
        Layer::Out(norm, conv) => conv.forward(&norm.forward_silu(&x)?),
        Layer::Tiny(block) => block.forward(&x),
        Layer::Relu => x.relu(),
        Layer::Affine(factor, summand) => x.affine(*factor, *summand),
        Layer::SoftClamp(bound) => (x / *bound)?.tanh()? * *bound,
    })?;
    image::end(&y)
}
