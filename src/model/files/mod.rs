//! Models as files: which files of a folder or repository make up a model, and their tensors by name. Nothing here
//! depends on the arithmetic of a network.

pub mod contents;
mod directory;
pub mod hub;
pub(super) mod kind;
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
