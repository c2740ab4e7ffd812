//! Tensors by name from safetensors files, mapped into memory and read only when asked for, and written.

mod error;
mod header;
mod mapped;
mod reading;
mod write;

pub use error::WeightsError;
pub use mapped::Weights;
pub use reading::{Reading, Stored, transpose};
pub use write::{remove_from, write, write_with};
