//! The pipeline file (strict), and settings of this machine (layered).
//!
//! A pipeline determines every byte of a result; a setting never changes one. So the two are read by
//! different code, and only the first enters a key.

mod classify;
mod combination;
pub mod error;
mod file;
mod grammar;
mod layer;
mod limits;
mod nulls;
pub mod overrides;
pub mod pipeline;
mod renamed;
pub mod schema;
pub mod settings;
pub mod slurm;
mod source_text;
mod survey;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
mod text_file;
mod yaml;

pub use error::{ConfigError, ConfigErrorKind};
pub use file::PipelineFile;
pub use overrides::Override;
pub use pipeline::{Pipeline, StageEntry};
pub use settings::Settings;
pub use slurm::SlurmSettings;
pub use source_text::{Place, SourceText};
pub use sweep::{Axis, Sweep, combinations};
