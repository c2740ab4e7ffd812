//! Reads tensors by name from memory-mapped safetensors files, on demand, and writes such files.

mod error;
mod header;
mod mapped;
mod reading;
mod write;

pub use error::WeightsError;
pub use mapped::Weights;
pub use reading::{Reading, Stored, transpose};
pub use write::{remove_from, write, write_small, write_with};
