//! Models as they lie on disk and as lists of steps: U-Nets, text encoders, autoencoders.

pub mod clip;
pub mod contents;
pub mod directory;
pub mod hub;
mod ledger;
pub mod original;
mod prediction;
mod resnet;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod weights;

pub use directory::{ModelDirectory, ModelError, Part, Scorer};
pub use ledger::TensorEntry;
pub use original::Checkpoint;
pub use prediction::Prediction;
pub use unet::{UNet, UNetConfig};
pub use weights::Weights;
