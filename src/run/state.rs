//! The states of a stage within a run.
//!
//! ```text
//!           ┌── cached                 its artefact was found and is undamaged
//!           ├── skipped                an input failed or was skipped
//! waiting ──┤
//!           │             ┌── done         its artefact is in the cache
//!           └── running ──┼── failed       it gave an error, or panicked
//!                         └── interrupted  it stopped on request; its checkpoint is written
//! ```
//!
//! A stage leaves `waiting` only when all of its inputs are `cached` or `done`, because only then is its key
//! known. It is `skipped` as soon as one of them has failed or was skipped, and `failed` when its files
//! cannot be read. In the record of a run that is over, `waiting` means that the run ended before the
//! stage's turn, and `running` that the process was killed while the stage ran.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageState {
    /// It has not run yet.
    #[default]
    Waiting,
    /// Its artefact was in the cache.
    Cached,
    /// It is running and holds the lock of its key.
    Running,
    /// It ran, and its artefact is in the cache.
    Done,
    /// It ran, and gave an error.
    Failed,
    /// It ran, and stopped on request.
    Interrupted,
    /// It cannot run because an input failed or was skipped.
    Skipped,
}

impl StageState {
    /// Whether its artefact can be read.
    pub fn has_artefact(self) -> bool {
        matches!(self, Self::Cached | Self::Done)
    }

    /// Whether the diagram above has an arrow to `next`.
    fn leads_to(self, next: Self) -> bool {
        match self {
            Self::Waiting => matches!(next, Self::Cached | Self::Running | Self::Skipped | Self::Failed),
            Self::Running => matches!(next, Self::Done | Self::Failed | Self::Interrupted),
            _ => false,
        }
    }

    /// Goes on to `next`.
    pub(super) fn enter(&mut self, next: Self) {
        assert!(self.leads_to(next), "BUG: a stage went from {self} to {next}");
        *self = next;
    }
}

impl fmt::Display for StageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Cached => "cached",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
        })
    }
}
