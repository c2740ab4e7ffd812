//! The training engine: what a training needs that is not the method's own.

pub mod collective;
mod error;
mod gathered;
mod shards;

pub use error::TrainError;
pub use gathered::{Fetched, Held, gather};
pub use shards::Shards;
