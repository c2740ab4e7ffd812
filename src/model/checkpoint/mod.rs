//! Single-file checkpoints in the original layout: U-Net, autoencoder and text encoders in one file without a
//! configuration.

mod detect;
mod open;
mod places;

pub use open::Checkpoint;
pub use places::{TextPlace, UNET, V_PREDICTION, VAE, text_places};
