//! Autoencoders of Stable Diffusion.

mod autoencoder;
mod blocks;
mod config;
mod kl;
mod kl_config;
mod layer;
mod load;
mod original;
mod scaling;
mod tiling;
mod tiny;
mod tiny_config;

pub use autoencoder::Autoencoder;
pub use config::VaeConfig;
pub use kl_config::KlConfig;
pub use original::vae_names;
pub use tiling::TileSide;
pub use tiny_config::TinyConfig;
