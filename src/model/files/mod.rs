//! Models as files: which files of a folder or a repository are one, and tensors by name in them. Nothing here knows
//! what a network computes.

pub mod contents;
mod directory;
pub mod hub;
pub(super) mod ledger;
mod names;
pub mod original;
mod part;
mod tensor;
pub mod weights;

pub use directory::ModelDirectory;
pub use part::Part;
pub use tensor::TensorEntry;
pub use weights::{Weights, WeightsError};
