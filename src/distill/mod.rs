//! Retrains a pruned U-Net against its teacher: normalised feature distillation.
//!
//! [`Distillation`] is the loop, [`DistillParameters`] its numbers, [`LatentSource`] where its latents come from.
//! `losses` holds the maths; `lessons` what a step is about; `checkpoint` and `history` what outlives a crash.

pub mod average;
mod checkpoint;
mod error;
pub mod gradients;
pub mod history;
mod latent_files;
mod latents;
mod lessons;
pub mod losses;
mod optimiser;
mod parameters;
mod tensors;
mod train;

pub use error::DistillError;
pub use history::HistoryLine;
pub use latent_files::LatentFiles;
pub use latents::{LatentBatch, LatentSource};
pub use losses::Normalisation;
pub use parameters::{DistillParameters, FeatureTaps, LearningRateSchedule};
pub use train::{Cadence, Distillation, Distilled};
