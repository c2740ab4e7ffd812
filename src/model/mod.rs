//! Models as they lie on disk and as lists of steps: U-Nets, text encoders, autoencoders.

pub mod directory;
mod ledger;
pub mod unet;
pub mod weights;

pub use directory::{ModelDirectory, ModelError, Part};
pub use ledger::TensorEntry;
pub use unet::{UNet, UNetConfig};
pub use weights::Weights;
