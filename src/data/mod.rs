//! Prompts, pictures, calibration points and training data.

mod ahead;
pub mod calibration;
mod captioned;
mod encode;
mod encode_files;
mod error;
mod finite;
mod fit;
mod index;
pub mod latents;
pub mod order;
pub mod picture;
pub mod pictures;
mod prepare;
pub mod prompts;
mod records;
pub mod sample;
mod samples;
mod shard;
pub mod sources;
pub mod table;
mod target;
pub mod text;
mod trajectories;

pub use calibration::{Calibration, Points};
pub use captioned::Captioned;
pub use encode::{Encoding, LatentDrawing};
pub use encode_files::SampleFiles;
pub use error::DataError;
pub use latents::{LatentBatch, Latents};
pub use prepare::Preparation;
pub use samples::{Background, Captions, Rules, Sample, SampleList};
pub use text::Encoder;
pub use trajectories::Trajectories;
