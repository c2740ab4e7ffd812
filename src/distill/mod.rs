//! Retrains a pruned U-Net against its teacher: normalised feature distillation.
//!
//! [`Distillation`] is the training loop and [`DistillParameters`] its parameters. `losses` contains the formulas and
//! `term_weights` what they are multiplied by; `batches` makes the batch of a step from what `draws` draws ahead, `held_out` those of a validation;
//! `checkpoint` and the files of `diary` survive a crash; `look` reads a checkpoint while it trains.

mod batches;
mod checkpoint;
mod diary;
mod divergence;
mod draws;
mod easel;
mod error;
mod feature_maps;
mod held_out;
pub mod history;
mod lines;
mod look;
pub mod losses;
mod measuring;
pub mod memory;
mod order;
mod parameters;
mod pieces;
mod term_weights;
#[cfg(test)]
mod tests;
mod train;
pub mod validation;
mod validation_parameters;

pub use checkpoint::name_of as checkpoint_name;
pub use diary::Cadence;
pub use easel::Easel;
pub use error::DistillError;
pub use history::HistoryLine;
pub use look::{Glimpse, look, steps};
pub use losses::Normalisation;
pub use memory::TrainingMemory;
pub use parameters::{DistillParameters, FeatureTaps, LearningRateSchedule};
pub use term_weights::ByKind;
pub use train::{Distillation, Distilled};
pub use validation_parameters::ValidationParameters;
