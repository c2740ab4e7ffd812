//! Executes a plan: states, events, the record of a run.
//!
//! The executor walks the graph in order. It obtains each stage's artefact from the cache, which
//! calls back to run the stage if the artefact is missing. It prints nothing: it tells a [`Sink`] what happens.
//! By default stages run one after the other, because most of them use the whole machine. With several places
//! (`dispatch`) ready stages run at once, each in a process of its own (`serve`), and the process of the run alone decides,
//! records and tells. Jobs of a batch system do their `share` each.

mod attempt;
pub mod difference;
mod dispatch;
mod error;
mod event;
mod execute;
mod exit;
mod exit_table;
mod failure;
mod folder;
mod follow;
mod hashing;
pub mod hook;
mod inputs;
mod intermediates;
mod job;
mod message;
mod notices;
mod places;
mod record;
mod reporter;
pub mod roots;
mod schedule;
mod serve;
mod share;
mod side_by_side;
pub mod signals;
mod state;
mod stopped;
mod training;
pub mod verification;
mod work;
mod workers;

pub use error::RunError;
pub use event::{EVENT_FORMAT, EVENTS, Event, Sink, Stamped};
pub use execute::{execute, survey};
pub use exit::ExitCode;
pub use failure::Failure;
pub use follow::follow;
pub use hashing::Hashing;
pub use job::{Job, Options};
pub use places::in_run_folder;
pub use record::{ArtefactRecord, DeviceRecord, RECORD_FORMAT, RunRecord, StageRecord};
pub use serve::{ToRun, serve};
pub use share::{Ended, Last, Part, Share};
pub use state::StageState;
pub use stopped::{Stopped, progress_in};
pub use training::Unfinished;

#[cfg(test)]
mod tests;
