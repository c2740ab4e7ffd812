//! The autoencoder between pictures and latents (diffusers' `AutoencoderKL`); each half is a list of layers.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::VaeConfig;
use super::tiling::{self, TileSide};
use crate::model::blocks::ResnetBlock;
use crate::nn::{Conv2d, GroupNorm, Linear, activation_dtype, attention};

/// Epsilon of every norm; diffusers fixes it.
const EPS: f64 = 1e-6;

/// Converts pictures to latents and back.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    config: VaeConfig,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    dtype: DType,
    tile: Option<TileSide>,
}

#[derive(Clone, Debug)]
enum Layer {
    Conv(Conv2d),
    Resnet(Box<ResnetBlock>),
    Attention(AttentionBlock),
    Downsample(Conv2d),
    Upsample(Conv2d),
    Out(GroupNorm, Conv2d),
}

impl AutoencoderKl {
    /// Reads the weights; names are those of diffusers.
    pub fn new(config: &VaeConfig, vb: VarBuilder) -> Result<Self> {
        let dtype = activation_dtype(vb.dtype(), vb.device());
        Ok(Self {
            encoder: encoder(config, &vb)?,
            decoder: decoder(config, &vb)?,
            config: config.clone(),
            dtype,
            tile: None,
        })
    }

    /// The same autoencoder, which splits inputs larger than `tile` into tiles; with `None` it processes everything at
    /// once.
    pub fn tiled(self, tile: Option<TileSide>) -> Self {
        Self { tile, ..self }
    }

    /// Its configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The number of pixels per latent pixel along one side.
    pub fn downscale(&self) -> usize {
        self.config.downscale()
    }

    /// Pictures [b, 3, h, w] in -1..1 -> latents [b, 4, h/8, w/8] of about unit variance. Uses the mean of the
    /// posterior: calibration and training need no second source of noise.
    pub fn encode(&self, pictures: &Tensor) -> Result<Tensor> {
        let moments = self.walk(&self.encoder, &pictures.to_dtype(self.dtype)?, self.downscale(), 1)?;
        moments.narrow(1, 0, self.config.latent_channels)?.contiguous()? * self.config.scaling_factor
    }

    /// Latents [b, 4, h, w] of about unit variance -> pictures [b, 3, 8h, 8w], about -1..1, not clamped.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = (latents.to_dtype(self.dtype)? / self.config.scaling_factor)?;
        self.walk(&self.decoder, &latents, 1, self.downscale())
    }

    /// Applies one half, in tiles if `x` is larger than a tile. A latent pixel corresponds to `before` pixels of `x`
    /// and `after` pixels of the result.
    fn walk(&self, half: &[Layer], x: &Tensor, before: usize, after: usize) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        match self.tile.map(TileSide::get) {
            Some(side) if height.max(width) > side * before => {
                tiling::by_tiles(x, side * before, side / 4 * after, |tile| walk(half, tile))
            }
            _ => walk(half, x),
        }
    }
}

fn walk(layers: &[Layer], x: &Tensor) -> Result<Tensor> {
    layers.iter().try_fold(x.clone(), |x, layer| match layer {
        Layer::Conv(conv) => conv.forward(&x),
        Layer::Resnet(block) => block.forward(&x, None),
        Layer::Attention(block) => block.forward(&x),
        // One zero row and column, only at the end, unlike in a U-Net.
        Layer::Downsample(conv) => conv.forward(&x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?),
        Layer::Upsample(conv) => conv.forward_upsampled(&x),
        Layer::Out(norm, conv) => conv.forward(&norm.forward_silu(&x)?),
    })
}

fn encoder(config: &VaeConfig, root: &VarBuilder) -> Result<Vec<Layer>> {
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

fn decoder(config: &VaeConfig, root: &VarBuilder) -> Result<Vec<Layer>> {
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

fn resnet(config: &VaeConfig, inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Layer> {
    let block = ResnetBlock::new(inputs, outputs, None, config.norm_num_groups, EPS, vb)?;
    Ok(Layer::Resnet(Box::new(block)))
}

fn mid(config: &VaeConfig, channels: usize, vb: VarBuilder) -> Result<Vec<Layer>> {
    let mut layers = vec![resnet(config, channels, channels, vb.pp("resnets.0"))?];
    if config.mid_block_add_attention {
        let block = AttentionBlock::new(channels, config.norm_num_groups, vb.pp("attentions.0"))?;
        layers.push(Layer::Attention(block));
    }
    layers.push(resnet(config, channels, channels, vb.pp("resnets.1"))?);
    Ok(layers)
}

fn out(config: &VaeConfig, inputs: usize, outputs: usize, vb: &VarBuilder) -> Result<Layer> {
    let norm = GroupNorm::new(inputs, config.norm_num_groups, EPS, vb.pp("conv_norm_out"))?;
    Ok(Layer::Out(norm, Conv2d::new(inputs, outputs, 3, 1, 1, vb.pp("conv_out"))?))
}

/// Self-attention over pixels, one head.
#[derive(Clone, Debug)]
struct AttentionBlock {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl AttentionBlock {
    fn new(channels: usize, groups: usize, vb: VarBuilder) -> Result<Self> {
        // Files written before diffusers 0.16, including Stable Diffusion 1.5, have the older names.
        let names = match vb.contains_tensor("query.weight") {
            true => ["query", "key", "value", "proj_attn"],
            false => ["to_q", "to_k", "to_v", "to_out.0"],
        };
        let linear = |name| Linear::new(channels, channels, true, vb.pp(name));
        Ok(Self {
            group_norm: GroupNorm::new(channels, groups, EPS, vb.pp("group_norm"))?,
            to_q: linear(names[0])?,
            to_k: linear(names[1])?,
            to_v: linear(names[2])?,
            to_out: linear(names[3])?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = self.group_norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?; // [b, h*w, c]
        let (q, k, v) =
            (self.to_q.forward(&tokens)?, self.to_k.forward(&tokens)?, self.to_v.forward(&tokens)?);
        let tokens = self.to_out.forward(&attention(&q, &k, &v, 1, false)?)?;
        x + tokens.transpose(1, 2)?.contiguous()?.reshape(x.shape())?
    }
}
