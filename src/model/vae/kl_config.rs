//! `config.json` of diffusers' `AutoencoderKL`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::scaling;

/// Its blocks. Others, such as blocks with attention, compute something else.
const DOWN_BLOCK: &str = "DownEncoderBlock2D";
const UP_BLOCK: &str = "UpDecoderBlock2D";

/// The configuration of an `AutoencoderKL`. A value that would change the arithmetic is refused by [`KlConfig::check`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct KlConfig {
    /// Channels of the input pictures.
    pub in_channels: usize,
    /// Channels of the output pictures.
    pub out_channels: usize,
    /// Channels of each resolution, outermost first.
    pub block_out_channels: Vec<usize>,
    /// ResNets of each resolution in the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of every norm.
    pub norm_num_groups: usize,
    /// Factor that scales latents to unit variance.
    pub scaling_factor: f64,
    /// Whether activations overflow in half precision.
    pub force_upcast: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle of each half contains attention.
    pub mid_block_add_attention: bool,
    act_fn: String,
    shift_factor: Option<f64>,
    latents_mean: Option<Vec<f64>>,
    latents_std: Option<Vec<f64>>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    /// The side of training pictures, which nothing depends on.
    sample_size: Value,
}

impl Default for KlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            act_fn: "silu".to_owned(),
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            down_block_types: Vec::new(),
            up_block_types: Vec::new(),
            sample_size: Value::Null,
        }
    }
}

impl KlConfig {
    /// What is unsupported, as text.
    pub fn check(&self) -> std::result::Result<(), String> {
        let groups = self.norm_num_groups;
        let bounded = |size: usize| (1..=1 << 16).contains(&size);
        let divides = |channels: &usize| groups > 0 && bounded(*channels) && channels.is_multiple_of(groups);
        let sizes = [self.in_channels, self.out_channels, self.latent_channels];
        let layers = self.layers_per_block;
        self.check_blocks()?;
        scaling::check(self.shift_factor, self.scaling_factor)?;
        match () {
            () if self.latents_mean.is_some() || self.latents_std.is_some() => {
                Err("`latents_mean` or `latents_std` is set; only autoencoders with a `scaling_factor` alone are \
                     supported"
                    .to_owned())
            }
            // Two names of the same function.
            () if !["silu", "swish"].contains(&self.act_fn.as_str()) => {
                Err(format!("`act_fn` is {}; only silu is supported", self.act_fn))
            }
            () if !sizes.into_iter().all(bounded) => Err(format!("channels {sizes:?} are out of range")),
            () if !(1..=1 << 8).contains(&layers) || self.block_out_channels.len() > 16 => {
                Err(format!("{layers} layers in {} blocks are out of range", self.block_out_channels.len()))
            }
            () if self.block_out_channels.is_empty() || !self.block_out_channels.iter().all(divides) => {
                Err(format!(
                    "`norm_num_groups` is {groups}; it must divide each of `block_out_channels` {:?}",
                    self.block_out_channels
                ))
            }
            () => Ok(()),
        }
    }

    fn check_blocks(&self) -> std::result::Result<(), String> {
        let levels = self.block_out_channels.len();
        for (key, types, only) in [
            ("down_block_types", &self.down_block_types, DOWN_BLOCK),
            ("up_block_types", &self.up_block_types, UP_BLOCK),
        ] {
            if let Some(other) = types.iter().find(|kind| *kind != only) {
                return Err(format!("`{key}` contains {other}; only {only} is supported"));
            }
            if !types.is_empty() && types.len() != levels {
                return Err(format!(
                    "`{key}` has {} entries, `block_out_channels` has {levels}",
                    types.len()
                ));
            }
        }
        Ok(())
    }
}
