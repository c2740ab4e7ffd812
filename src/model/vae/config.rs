//! The configuration of an autoencoder, of either class that is supported.

use candle_core::DType;
use serde_json::{Map, Value};

use super::kl_config::KlConfig;
use super::tiny_config::TinyConfig;

/// The classes whose `config.json` is read.
pub(super) const KL: &str = "AutoencoderKL";
pub(super) const TINY: &str = "AutoencoderTiny";

/// The most elements of a feature map of several pictures.
const MOST_ELEMENTS: usize = 1 << 28;

/// `config.json` of an autoencoder. [`VaeConfig::unknown_keys`] lists the keys that are not read; a value that would change
/// the arithmetic is refused by [`VaeConfig::check`].
#[derive(Clone, Debug)]
pub enum VaeConfig {
    /// The autoencoder of Stable Diffusion.
    Kl(KlConfig),
    /// A small autoencoder for the same latents (TAESD).
    Tiny(TinyConfig),
}

impl VaeConfig {
    /// What is unsupported, as text.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Kl(config) => config.check(),
            Self::Tiny(config) => config.check(),
        }
    }

    /// The keys of a `config.json` that are not known; they may change what the autoencoder computes.
    pub fn unknown_keys(config: &Map<String, Value>) -> serde_json::Result<Vec<String>> {
        let read = match config.get("_class_name").and_then(Value::as_str) {
            Some(TINY) => serde_json::to_value(TinyConfig::default())?,
            _ => serde_json::to_value(KlConfig::default())?,
        };
        let known = |key: &str| key.starts_with('_') || read.get(key).is_some();
        Ok(config.keys().filter(|key| !known(key)).cloned().collect())
    }

    /// Its class in diffusers.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Kl(_) => KL,
            Self::Tiny(_) => TINY,
        }
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Tiny(config) => config.latent_channels,
        }
    }

    /// Channels of the decoder's feature maps at full size, where it needs the most memory.
    pub fn decoder_width(&self) -> usize {
        match self {
            Self::Kl(config) => config.block_out_channels[0],
            Self::Tiny(config) => config.decoder_block_out_channels[0],
        }
    }

    /// How many pictures of so many pixels go through a half together: feature maps stay at 1 GiB in f32, and far below the
    /// 2^32 elements that kernels of GPUs can count. SDXL at 1024x1024 has 2^28 per picture: its decoder upsamples the
    /// channels of the second level to full size.
    pub fn pictures_at_once(&self, pixels: usize) -> usize {
        let channels = match self {
            Self::Kl(config) => config.block_out_channels.iter().take(2).max(),
            Self::Tiny(config) => config.decoder_block_out_channels.iter().max(),
        };
        let of_picture = channels.copied().unwrap_or(1).saturating_mul(pixels);
        (MOST_ELEMENTS / of_picture.max(1)).max(1)
    }

    /// Factor that scales latents to unit variance.
    pub fn scaling_factor(&self) -> f64 {
        match self {
            Self::Kl(config) => config.scaling_factor,
            Self::Tiny(config) => config.scaling_factor,
        }
    }

    /// The number of pixels per latent pixel along one side.
    pub fn downscale(&self) -> usize {
        let levels = match self {
            Self::Kl(config) => config.block_out_channels.len(),
            Self::Tiny(config) => config.encoder_block_out_channels.len(),
        };
        1 << levels.saturating_sub(1)
    }

    /// The type to compute in: f16 overflows if `force_upcast` is set, as in diffusers.
    pub fn compute_dtype(&self, asked: DType) -> DType {
        let overflows = matches!(self, Self::Kl(config) if config.force_upcast);
        if overflows && asked == DType::F16 { DType::F32 } else { asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_decoded_one_by_one() {
        let config = serde_json::json!({ "block_out_channels": [128, 256, 512, 512] });
        let vae = VaeConfig::Kl(serde_json::from_value(config).expect("the rest has defaults"));
        assert_eq!(
            [512 * 512, 1024 * 1024, 2048 * 2048].map(|pixels| vae.pictures_at_once(pixels)),
            [4, 1, 1]
        );
    }
}
