//! Retrains a pruned U-Net against its teacher: normalised feature distillation.
//!
//! [`Distillation`] is the training and [`DistillParameters`] its parameters; `train` is the loop and `student` one step of
//! it. `losses` contains the formulas and `term_weights` what they are multiplied by; `batches` makes the batch of a step
//! from what `draws` draws ahead, `held_out` those of a validation; `checkpoint` and the files of `diary` survive a crash; `look` reads a checkpoint while it trains.

mod batches;
mod checkpoint;
mod diary;
mod distillation;
mod divergence;
mod draws;
mod easel;
// The emulation switches stacks in x86-64's assembly.
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod emulated;
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
mod student;
mod term_weights;
#[cfg(test)]
mod tests;
mod train;
pub mod validation;
mod validation_parameters;

pub use checkpoint::name_of as checkpoint_name;
pub use diary::Cadence;
pub use distillation::{Distillation, Distilled};
pub use easel::Easel;
pub use error::DistillError;
pub use history::HistoryLine;
pub use look::{Glimpse, look, steps};
pub use losses::Normalisation;
pub use memory::TrainingMemory;
pub use parameters::{DistillParameters, FeatureTaps, LearningRateSchedule};
pub use term_weights::ByKind;
pub use validation_parameters::ValidationParameters;
