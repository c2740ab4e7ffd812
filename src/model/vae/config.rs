//! `config.json` of an autoencoder.

use candle_core::DType;
use serde::Deserialize;

/// `config.json` of an autoencoder. Unknown keys are ignored; a key that would change the arithmetic is refused by
/// [`VaeConfig::check`].
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
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
}

impl Default for VaeConfig {
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
        }
    }
}

impl VaeConfig {
    /// What is unsupported, as text.
    pub fn check(&self) -> std::result::Result<(), String> {
        let groups = self.norm_num_groups;
        let bounded = |size: usize| (1..=1 << 16).contains(&size);
        let divides = |channels: &usize| groups > 0 && bounded(*channels) && channels.is_multiple_of(groups);
        let sizes = [self.in_channels, self.out_channels, self.latent_channels];
        let layers = self.layers_per_block;
        match () {
            () if self.shift_factor.is_some_and(|shift| shift != 0.0) => {
                Err("`shift_factor` is set; only autoencoders without a shift are supported".to_owned())
            }
            () if self.latents_mean.is_some() => {
                Err("`latents_mean` is set; only autoencoders with a `scaling_factor` alone are supported"
                    .to_owned())
            }
            () if self.act_fn != "silu" => {
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

    /// The number of pixels per latent pixel along one side.
    pub fn downscale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// The type to compute in: f16 overflows if `force_upcast` is set, as in diffusers.
    pub fn compute_dtype(&self, asked: DType) -> DType {
        if self.force_upcast && asked == DType::F16 { DType::F32 } else { asked }
    }
}
