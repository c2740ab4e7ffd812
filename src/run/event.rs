//! The events of a run. The executor emits them; the log in the run folder, the bars, the plain
//! lines and `--json` read them. On disk and on a pipe each event is one line of JSON, with the time beside it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::{Digest, StageId, clock};
use crate::metric::Verdict;
use crate::model::files::hub::Pinned;

/// The format of events as JSON. History: 1, the first; 2, `stage-started` has no `resumed`, which `stage-resumed` says. A
/// new kind of event or a new field does not raise it.
pub const EVENT_FORMAT: u32 = 2;

/// The file of the events in a run folder.
pub const EVENTS: &str = "events.jsonl";

/// Receives the events of a run, from several threads.
pub trait Sink: Send + Sync {
    /// An event happened.
    fn event(&self, event: &Event);
}

/// One event and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped<E> {
    /// When, as `2026-08-01T12:00:00Z`.
    pub at: String,
    /// What.
    pub event: E,
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// The first event of every run.
    RunStarted {
        /// [`EVENT_FORMAT`].
        format: u32,
        /// The pipeline's name.
        name: String,
        /// The version of this program.
        program: String,
        /// The stages of this run, in order.
        stages: Vec<StageId>,
    },
    /// An artefact in the cache is damaged and will be made again.
    DamageFound {
        /// The stage whose artefact it is.
        stage: StageId,
        /// The file.
        #[serde(with = "crate::base::path_text")]
        path: PathBuf,
        /// The digest that it should have.
        expected: Option<Digest>,
        /// The digest that it has.
        found: Option<Digest>,
    },
    /// The revision of a hub repository was resolved to a commit.
    StagePinned {
        /// The stage that reads it.
        stage: StageId,
        /// The repository.
        repository: Pinned,
    },
    /// Another process is making the same artefact, and this one waits for it.
    StageWaiting {
        /// The stage.
        stage: StageId,
        /// Its key.
        key: Digest,
        /// The other process: `process 12 on host`.
        holder: String,
    },
    /// The remote of the cache gave or took the artefact, or why it did not.
    StageRemote {
        /// The stage.
        stage: StageId,
        /// What happened, in words. It holds no credentials.
        text: String,
    },
    /// A large file is being hashed, to see whether it changed. Comes from time to time, the last one when it is done.
    Hashing {
        /// The file.
        #[serde(with = "crate::base::path_text")]
        path: PathBuf,
        /// Bytes that are hashed.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The artefact was in the cache.
    StageCached {
        /// The stage.
        stage: StageId,
        /// Its key.
        key: Digest,
        /// Digest of the artefact.
        digest: Digest,
        /// How long it took to make.
        seconds: f64,
    },
    /// The stage began to run.
    StageStarted {
        /// The stage.
        stage: StageId,
        /// Its `use:` name.
        name: String,
        /// Its key.
        key: Digest,
    },
    /// The stage found undamaged work of an earlier attempt in its checkpoint and continues after it.
    StageResumed {
        /// The stage.
        stage: StageId,
        /// Pieces found.
        done: u64,
        /// Pieces in all.
        total: u64,
        /// What a piece is: `points`, `steps`.
        unit: String,
    },
    /// A file of the stage's checkpoint is damaged. It was removed, and its piece of work is done again.
    CheckpointDropped {
        /// The stage.
        stage: StageId,
        /// The name of the file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Progress of a stage.
    StageProgress {
        /// The stage.
        stage: StageId,
        /// Pieces done, counted from the beginning of the stage.
        done: u64,
        /// Pieces in all.
        total: u64,
        /// What a piece is: `points`, `steps`.
        unit: String,
    },
    /// A note from the stage.
    StageNote {
        /// The stage.
        stage: StageId,
        /// The note.
        text: String,
    },
    /// The stage has run and its artefact is in the cache.
    StageDone {
        /// The stage.
        stage: StageId,
        /// Its key.
        key: Digest,
        /// Digest of the artefact.
        digest: Digest,
        /// How long it took.
        seconds: f64,
        /// Size of the artefact.
        bytes: u64,
        /// Peak memory of the process while it ran, where the system says.
        peak_bytes: Option<u64>,
    },
    /// A gate was compared with the stage's artefact.
    GateCompared {
        /// The stage.
        stage: StageId,
        /// The gate, what was found, and whether it was met.
        verdict: Verdict,
    },
    /// The stage gave an error.
    StageFailed {
        /// The stage.
        stage: StageId,
        /// The error, with its causes.
        error: String,
    },
    /// The stage stopped on request; the same command resumes it from its checkpoint.
    StageInterrupted {
        /// The stage.
        stage: StageId,
    },
    /// The stage cannot run.
    StageSkipped {
        /// The stage.
        stage: StageId,
        /// The input that failed or was skipped.
        because: StageId,
    },
    /// A note on the run as a whole: a server that is told of it is away.
    RunNote {
        /// The note.
        text: String,
    },
    /// The last event of every run that was not killed.
    RunDone {
        /// The exit code.
        code: u8,
        /// How long it took.
        seconds: f64,
        /// How many stages ran.
        ran: usize,
        /// How many were cached.
        cached: usize,
        /// How many failed.
        failed: usize,
        /// How many could not run, because what they need failed.
        #[serde(default)]
        skipped: usize,
        /// The run folder.
        #[serde(with = "crate::base::path_text")]
        folder: PathBuf,
    },
}

impl Event {
    /// The stage that it is about.
    pub fn stage(&self) -> Option<&StageId> {
        match self {
            Self::RunStarted { .. } | Self::Hashing { .. } | Self::RunNote { .. } | Self::RunDone { .. } => {
                None
            }
            Self::DamageFound { stage, .. }
            | Self::StagePinned { stage, .. }
            | Self::StageWaiting { stage, .. }
            | Self::StageRemote { stage, .. }
            | Self::StageCached { stage, .. }
            | Self::StageStarted { stage, .. }
            | Self::StageResumed { stage, .. }
            | Self::CheckpointDropped { stage, .. }
            | Self::StageProgress { stage, .. }
            | Self::StageNote { stage, .. }
            | Self::StageDone { stage, .. }
            | Self::GateCompared { stage, .. }
            | Self::StageFailed { stage, .. }
            | Self::StageInterrupted { stage }
            | Self::StageSkipped { stage, .. } => Some(stage),
        }
    }

    /// The event as one line of JSON without its end, stamped with the time now.
    pub fn line(&self) -> String {
        let stamped = Stamped { at: clock::now(), event: self };
        serde_json::to_string(&stamped).expect("events hold only what JSON can say")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back_from_its_line() -> serde_json::Result<()> {
        let event = Event::StageProgress { stage: "scores".into(), done: 3, total: 8, unit: "points".into() };
        let line = event.line();
        assert!(line.contains(r#""event":{"type":"stage-progress","stage":"scores","done":3"#), "{line}");
        assert_eq!(serde_json::from_str::<Stamped<Event>>(&line)?.event, event);
        Ok(())
    }
}
