//! Executes a plan: states, events, the record of a run.
//!
//! The executor walks the graph in order. Of each stage it takes the key (`plan::manifest`), looks it up
//! in the cache, and runs what is not there. It prints nothing: it tells a [`Sink`] what happens.
//! Stages run one after the other, because each of them uses the whole machine.

mod attempt;
mod error;
mod event;
mod execute;
mod exit;
mod folder;
mod intermediates;
mod record;
mod reporter;
pub mod signals;
mod state;

pub use error::RunError;
pub use event::{EVENT_FORMAT, Event, Sink, Stamped};
pub use execute::{Job, Options, execute};
pub use exit::ExitCode;
pub use record::{ArtefactRecord, DeviceRecord, RECORD_FORMAT, RunRecord, StageRecord};
pub use state::StageState;

#[cfg(test)]
mod tests;
