//! The layers of diffusers' `AutoencoderTiny` (TAESD): convolutions without norms, and pictures in 0..1.

use candle_core::Result;
use candle_nn::VarBuilder;

use super::blocks::TinyBlock;
use super::layer::Layer;
use super::tiny_config::TinyConfig;
use crate::nn::Conv2d;

/// The decoder limits latents smoothly to this size.
const LATENT_BOUND: f64 = 3.0;

/// Pictures -> latents.
pub(super) fn encoder(config: &TinyConfig, root: &VarBuilder) -> Result<Vec<Layer>> {
    let width = config.encoder_block_out_channels[0];
    let mut list = List { vb: root.pp("encoder.layers"), layers: vec![Layer::Affine(0.5, 0.5)], count: 0 };
    for (level, &blocks) in config.num_encoder_blocks.iter().enumerate() {
        match level {
            0 => list.conv(config.in_channels, width)?,
            _ => list.push(|vb| Conv2d::without_bias(width, width, 3, 2, 1, vb).map(Layer::Conv))?,
        }
        list.blocks(blocks, width)?;
    }
    list.conv(width, config.latent_channels)?;
    Ok(list.layers)
}

/// Latents -> pictures.
pub(super) fn decoder(config: &TinyConfig, root: &VarBuilder) -> Result<Vec<Layer>> {
    let width = config.decoder_block_out_channels[0];
    let first = vec![Layer::SoftClamp(LATENT_BOUND)];
    let mut list = List { vb: root.pp("decoder.layers"), layers: first, count: 0 };
    list.conv(config.latent_channels, width)?;
    list.push(|_| Ok(Layer::Relu))?;
    for (level, &blocks) in config.num_decoder_blocks.iter().enumerate() {
        list.blocks(blocks, width)?;
        if level + 1 < config.num_decoder_blocks.len() {
            // In diffusers upsampling is a layer of its own.
            list.count += 1;
            list.push(|vb| Conv2d::without_bias(width, width, 3, 1, 1, vb).map(Layer::Upsample))?;
        }
    }
    list.conv(width, config.out_channels)?;
    list.layers.push(Layer::Affine(2.0, -1.0));
    Ok(list.layers)
}

/// Layers, numbered as in diffusers' `Sequential`.
struct List<'a> {
    vb: VarBuilder<'a>,
    layers: Vec<Layer>,
    count: usize,
}

impl<'a> List<'a> {
    fn push(&mut self, layer: impl FnOnce(VarBuilder<'a>) -> Result<Layer>) -> Result<()> {
        self.layers.push(layer(self.vb.pp(self.count))?);
        self.count += 1;
        Ok(())
    }

    fn conv(&mut self, inputs: usize, outputs: usize) -> Result<()> {
        self.push(|vb| Conv2d::new(inputs, outputs, 3, 1, 1, vb).map(Layer::Conv))
    }

    fn blocks(&mut self, count: usize, width: usize) -> Result<()> {
        (0..count).try_for_each(|_| self.push(|vb| TinyBlock::new(width, vb).map(Layer::Tiny)))
    }
}
