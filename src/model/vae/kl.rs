//! The layers of diffusers' `AutoencoderKL`, the autoencoder of Stable Diffusion.

use candle_core::Result;
use candle_nn::VarBuilder;

use super::blocks::{AttentionBlock, EPS};
use super::kl_config::KlConfig;
use super::layer::Layer;
use crate::model::blocks::ResnetBlock;
use crate::nn::{Conv2d, GroupNorm};

/// Pictures -> moments of the latents.
pub(super) fn encoder(config: &KlConfig, root: &VarBuilder) -> Result<Vec<Layer>> {
    let vb = root.pp("encoder");
    let widths = &config.block_out_channels;
    let (outer, inner) = (widths[0], widths[widths.len() - 1]);
    let moments = 2 * config.latent_channels;
    let mut layers = vec![Layer::Conv(Conv2d::new(config.in_channels, outer, 3, 1, 1, vb.pp("conv_in"))?)];
    let mut inputs = outer;
    for (level, &outputs) in widths.iter().enumerate() {
        let vb = vb.pp("down_blocks").pp(level);
        for layer in 0..config.layers_per_block {
            layers.push(resnet(config, inputs, outputs, vb.pp("resnets").pp(layer))?);
            inputs = outputs;
        }
        if level + 1 < widths.len() {
            let conv = Conv2d::new(outputs, outputs, 3, 2, 0, vb.pp("downsamplers.0.conv"))?;
            layers.push(Layer::Downsample(conv));
        }
    }
    layers.extend(mid(config, inner, vb.pp("mid_block"))?);
    layers.push(out(config, inner, moments, &vb)?);
    if config.use_quant_conv {
        layers.push(Layer::Conv(Conv2d::new(moments, moments, 1, 1, 0, root.pp("quant_conv"))?));
    }
    Ok(layers)
}

/// Latents -> pictures.
pub(super) fn decoder(config: &KlConfig, root: &VarBuilder) -> Result<Vec<Layer>> {
    let vb = root.pp("decoder");
    let widths = &config.block_out_channels;
    let (outer, inner) = (widths[0], widths[widths.len() - 1]);
    let latent = config.latent_channels;
    let mut layers = Vec::new();
    if config.use_post_quant_conv {
        layers.push(Layer::Conv(Conv2d::new(latent, latent, 1, 1, 0, root.pp("post_quant_conv"))?));
    }
    layers.push(Layer::Conv(Conv2d::new(latent, inner, 3, 1, 1, vb.pp("conv_in"))?));
    layers.extend(mid(config, inner, vb.pp("mid_block"))?);
    let mut inputs = inner;
    for (level, &outputs) in widths.iter().rev().enumerate() {
        let vb = vb.pp("up_blocks").pp(level);
        for layer in 0..=config.layers_per_block {
            layers.push(resnet(config, inputs, outputs, vb.pp("resnets").pp(layer))?);
            inputs = outputs;
        }
        if level + 1 < widths.len() {
            let conv = Conv2d::new(outputs, outputs, 3, 1, 1, vb.pp("upsamplers.0.conv"))?;
            layers.push(Layer::Upsample(conv));
        }
    }
    layers.push(out(config, outer, config.out_channels, &vb)?);
    Ok(layers)
}

fn resnet(config: &KlConfig, inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Layer> {
    let block = ResnetBlock::new(inputs, outputs, None, config.norm_num_groups, EPS, vb)?;
    Ok(Layer::Resnet(Box::new(block)))
}

fn mid(config: &KlConfig, channels: usize, vb: VarBuilder) -> Result<Vec<Layer>> {
    let mut layers = vec![resnet(config, channels, channels, vb.pp("resnets.0"))?];
    if config.mid_block_add_attention {
        let block = AttentionBlock::new(channels, config.norm_num_groups, vb.pp("attentions.0"))?;
        layers.push(Layer::Attention(block));
    }
    layers.push(resnet(config, channels, channels, vb.pp("resnets.1"))?);
    Ok(layers)
}

fn out(config: &KlConfig, inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Layer> {
    let norm = GroupNorm::new(inputs, config.norm_num_groups, EPS, vb.pp("conv_norm_out"))?;
    Ok(Layer::Out(norm, Conv2d::new(inputs, outputs, 3, 1, 1, vb.pp("conv_out"))?))
}
