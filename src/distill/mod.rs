//! Retrains a pruned U-Net against its teacher: normalised feature distillation.
//!
//! [`Distillation`] is the training loop and [`DistillParameters`] its parameters. `losses` contains the formulas and
//! `term_weights` what they are multiplied by; `batches` makes the batch of a step; `checkpoint` and `history` survive a
//! crash.

mod batches;
mod cadence;
mod checkpoint;
mod error;
mod feature_maps;
pub mod history;
pub mod losses;
pub mod memory;
mod parameters;
mod pieces;
mod term_weights;
#[cfg(test)]
mod tests;
mod train;

pub use cadence::Cadence;
pub use error::DistillError;
pub use history::HistoryLine;
pub use losses::Normalisation;
pub use memory::TrainingMemory;
pub use parameters::{DistillParameters, FeatureTaps, LearningRateSchedule};
pub use term_weights::ByKind;
pub use train::{Distillation, Distilled};
