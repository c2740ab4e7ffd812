//! Where a run stopped before it had made a stage's artefact.

use std::fmt;
use std::fs;
use std::path::Path;

use super::{EVENTS, Event, RunRecord, StageState, Stamped};
use crate::base::StageId;

/// The stage that a run stopped at.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopped {
    /// The stage.
    pub stage: StageId,
    /// Its state: `running` if the run was killed, or is not over.
    pub state: StageState,
    /// Pieces done, pieces in all, and what a piece is, as far as the log says.
    pub done: Option<(u64, u64, String)>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Stopped {
    /// The stage that keeps `wanted` from being made: itself, or else the first that is unfinished. `folder` is the run
    /// folder.
    pub fn of(record: &RunRecord, folder: &Path, wanted: &str) -> Option<Self> {
        let is_unfinished =
            |state| matches!(state, StageState::Running | StageState::Interrupted | StageState::Failed);
        let own = record.stage(wanted).filter(|stage| is_unfinished(stage.state));
        let stage = own.or_else(|| record.stages.iter().find(|stage| is_unfinished(stage.state)))?;
        let done = progress_in(&folder.join(EVENTS), &stage.id);
        Some(Self { stage: stage.id.clone(), state: stage.state, done, error: stage.error.clone() })
    }
}

/// The last progress of a stage in a log of events, of the last run there.
pub fn progress_in(log: &Path, wanted: &StageId) -> Option<(u64, u64, String)> {
    let log = fs::read_to_string(log).ok()?;
    for line in log.lines().rev() {
        match serde_json::from_str::<Stamped<Event>>(line).ok()?.event {
            Event::StageProgress { stage, done, total, unit } if stage == *wanted => {
                return Some((done, total, unit));
            }
            Event::StageStarted { stage, .. } if stage == *wanted => return None,
            Event::RunStarted { .. } => return None,
            _ => {}
        }
    }
    None
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.state {
            StageState::Interrupted => "was interrupted",
            StageState::Failed => "failed",
            _ => "was not finished",
        };
        write!(f, "stage `{}` {how}", self.stage)?;
        if let Some((done, total, unit)) = &self.done {
            write!(f, " after {done} of {total} {unit}")?;
        }
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}
