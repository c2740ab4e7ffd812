//! `config.json` of diffusers' `AutoencoderTiny`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::scaling;

/// The configuration of an `AutoencoderTiny`. A value that would change the arithmetic is refused by [`TinyConfig::check`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct TinyConfig {
    /// Channels of the input pictures.
    pub in_channels: usize,
    /// Channels of the output pictures.
    pub out_channels: usize,
    /// Channels of each resolution of the encoder, outermost first; all are equal.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels of each resolution of the decoder, innermost first; all are equal.
    pub decoder_block_out_channels: Vec<usize>,
    /// Blocks of each resolution of the encoder, outermost first.
    pub num_encoder_blocks: Vec<usize>,
    /// Blocks of each resolution of the decoder, innermost first.
    pub num_decoder_blocks: Vec<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Factor that scales latents to unit variance.
    pub scaling_factor: f64,
    act_fn: String,
    upsample_fn: String,
    upsampling_scaling_factor: usize,
    shift_factor: Option<f64>,
    /// For latents that are stored as bytes.
    latent_magnitude: Value,
    latent_shift: Value,
    /// Copies that diffusers writes: of the decoder's channels, and `false`.
    block_out_channels: Value,
    force_upcast: Value,
}

impl Default for TinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_channels: 4,
            scaling_factor: 1.0,
            act_fn: "relu".to_owned(),
            upsample_fn: "nearest".to_owned(),
            upsampling_scaling_factor: 2,
            shift_factor: None,
            latent_magnitude: Value::Null,
            latent_shift: Value::Null,
            block_out_channels: Value::Null,
            force_upcast: Value::Null,
        }
    }
}

impl TinyConfig {
    /// What is unsupported, as text.
    pub fn check(&self) -> Result<(), String> {
        let bounded = |size: usize| (1..=1 << 16).contains(&size);
        let halves = [
            ("encoder", &self.encoder_block_out_channels, &self.num_encoder_blocks),
            ("decoder", &self.decoder_block_out_channels, &self.num_decoder_blocks),
        ];
        for (half, channels, blocks) in halves {
            let levels = channels.len();
            if !(1..=16).contains(&levels)
                || blocks.len() != levels
                || blocks.iter().any(|blocks| *blocks > 256)
            {
                return Err(format!(
                    "`num_{half}_blocks` {blocks:?} does not fit `{half}_block_out_channels` {channels:?}"
                ));
            }
            // The convolution between two resolutions keeps the number of channels.
            if channels.iter().any(|size| *size != channels[0] || !bounded(*size)) {
                return Err(format!("`{half}_block_out_channels` is {channels:?}; all must be the same"));
            }
        }
        scaling::check(self.shift_factor, self.scaling_factor)?;
        let levels = halves.map(|(_, channels, _)| channels.len());
        let sizes = [self.in_channels, self.out_channels, self.latent_channels];
        match () {
            () if levels[0] != levels[1] => {
                Err(format!("the encoder has {} resolutions, the decoder {}", levels[0], levels[1]))
            }
            () if self.act_fn != "relu" => {
                Err(format!("`act_fn` is {}; only relu is supported", self.act_fn))
            }
            () if (self.upsample_fn.as_str(), self.upsampling_scaling_factor) != ("nearest", 2) => {
                Err(format!(
                    "`upsample_fn` is {} with `upsampling_scaling_factor` {}; only nearest with 2 is supported",
                    self.upsample_fn, self.upsampling_scaling_factor
                ))
            }
            () if !sizes.into_iter().all(bounded) => Err(format!("channels {sizes:?} are out of range")),
            () => Ok(()),
        }
    }
}
