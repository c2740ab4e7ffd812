//! Autoencoders of Stable Diffusion.

mod autoencoder;
mod config;
mod load;
mod original;
mod tiling;

pub use autoencoder::AutoencoderKl;
pub use config::VaeConfig;
pub use original::vae_names;
pub use tiling::TileSide;
