//! The configuration of an autoencoder, of either class that is supported.

use candle_core::DType;
use serde_json::{Map, Value};

use super::kl_config::KlConfig;
use super::tiny_config::TinyConfig;

/// The classes whose `config.json` is read.
pub(super) const KL: &str = "AutoencoderKL";
pub(super) const TINY: &str = "AutoencoderTiny";

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
