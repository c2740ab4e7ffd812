//! The stages of a pipeline: one file per `use:` name, each with its parameters beside the code that reads them, and
//! one row in [`STAGES`] (`table.rs`).

mod bench;
mod budgets;
mod calibrate;
mod criterion_blocks;
mod delta_clip;
mod distill;
mod distill_state;
mod distill_task;
mod distill_watch;
mod drawing;
mod encode;
mod error;
mod evaluate;
mod excerpt;
mod export;
mod interface;
mod load;
mod memory;
mod model;
mod named;
mod needs;
mod points;
mod profile;
mod prune;
mod resolved_file;
mod score;
mod select;
mod size;
mod sources;
mod table;
mod task;
mod unfinished;

pub use crate::base::BadValue;
pub use bench::Bench;
pub use drawing::{DEFAULT_SAMPLER, Drawing};
pub use error::StageError;
pub use excerpt::{Excerpt, Reader};
pub use interface::{Context, Earlier, FileInput, Input, Intermediates, Seat, Stage, StageInfo};
pub use needs::{KnownModel, KnownRows, Needs, Outlook};
pub use resolved_file::{Contents, ResolvedFile};
pub use size::PictureSize;
pub use table::{STAGES, deserialize};
pub use task::Task;
pub use unfinished::{has_model, write_model};
