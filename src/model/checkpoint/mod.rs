//! Single-file checkpoints in the original layout: U-Net, autoencoder and text encoders in one file without a
//! configuration.

mod encoders;
mod open;
mod places;
mod schedule;
mod shapes;
mod unet;
mod unplaced;

pub use open::{Checkpoint, Contents};
pub use places::{TextPlace, UNET, V_PREDICTION, VAE, ZERO_SNR, text_places};
