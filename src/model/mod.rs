//! Models as files and as lists of steps: U-Nets, text encoders, autoencoders.

mod blocks;
pub mod checkpoint;
pub mod clip;
mod error;
pub mod files;
pub mod network;
pub mod scorers;
pub mod unet;
pub mod vae;

pub use checkpoint::Checkpoint;
pub use clip::{Scorer, ScorerFolders};
pub use error::ModelError;
pub use files::{ModelDirectory, Part, TensorEntry, Weights, WeightsError};
pub use network::{Conditioning, Prediction};
pub use scorers::{Known, PictureModel, ScorerKind};
pub use unet::{UNet, UNetConfig};
