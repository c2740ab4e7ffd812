//! Prompts, pictures, calibration points and training data.

pub mod calibration;
mod captioned;
mod encode;
mod error;
mod finite;
mod fit;
pub mod latents;
pub mod order;
pub mod pictures;
pub mod prompts;
mod samples;
mod shard;
mod target;
pub mod text;
mod trajectories;

pub use calibration::{Calibration, Points};
pub use captioned::Captioned;
pub use encode::{Encoding, LatentDrawing};
pub use error::DataError;
pub use latents::{LatentBatch, Latents};
pub use samples::{Sample, SampleList};
pub use text::Encoder;
pub use trajectories::Trajectories;
