//! What has happened in a run, from its event log, which grows meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::base::{StageId, clock};
use crate::run::{Event, StageState, Stamped};

/// Reads a file of lines that another one appends to.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    path: PathBuf,
    offset: u64,
}

/// The most bytes that are read at once: some thousand lines.
const ONCE: u64 = 4 << 20;

impl Tail {
    /// From the beginning of the file.
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    /// From where the file ends now.
    pub(super) fn from_now(path: PathBuf) -> Self {
        let offset = path.metadata().map_or(0, |file| file.len());
        Self { path, offset }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next whole lines, and the tail behind them. None are left if the text is empty.
    pub(super) fn next(&self) -> (String, Self) {
        let text = self.read().unwrap_or_default();
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let behind = Self { path: self.path.clone(), offset: self.offset + end as u64 };
        (String::from_utf8_lossy(&text[..end]).into_owned(), behind)
    }

    /// A file that is not there yet, or became shorter, has nothing new.
    fn read(&self) -> io::Result<Vec<u8>> {
        let (mut file, mut text) = (File::open(&self.path)?, Vec::new());
        file.seek(SeekFrom::Start(self.offset))?;
        file.take(ONCE).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// The event log of a run.
pub(super) struct Log {
    tail: Tail,
    /// What it says of the last run in it.
    pub(super) happened: Happened,
}

/// What has happened so far. Times are milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// The stages of the run.
    pub(super) wanted: BTreeSet<StageId>,
    /// The stages that something was told of.
    pub(super) stages: BTreeMap<StageId, Seen>,
    /// When it began.
    pub(super) begun: u64,
    /// Its exit code and when it ended.
    pub(super) end: Option<(u8, u64)>,
}

/// What has happened to a stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) state: StageState,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Why it failed.
    pub(super) error: Option<String>,
    /// The failed input that it needs.
    pub(super) because: Option<StageId>,
}

impl Log {
    /// Reads what is written from now on.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { tail: Tail::from_now(path), happened: Happened::default() }
    }

    /// Reads what is new. Returns whether a stage or the run has changed.
    pub(super) fn more(&mut self) -> bool {
        let mut changed = false;
        loop {
            let (text, behind) = self.tail.next();
            if text.is_empty() {
                return changed;
            }
            self.tail = behind;
            for line in text.lines() {
                // Another version may write other events.
                let Ok(stamped) = serde_json::from_str::<Stamped<Event>>(line) else { continue };
                let at = clock::seconds_of(&stamped.at).map_or(0, |seconds| seconds.max(0) as u64 * 1000);
                changed |= self.happened.take(stamped.event, at);
            }
        }
    }
}

impl Happened {
    fn take(&mut self, event: Event, at: u64) -> bool {
        let (mut error, mut because) = (None, None);
        let (stage, state) = match event {
            Event::RunStarted { stages, .. } => {
                *self = Self { wanted: stages.into_iter().collect(), begun: at, ..Self::default() };
                return true;
            }
            Event::RunDone { code, .. } => {
                self.end = Some((code, at));
                return true;
            }
            Event::StageStarted { stage, .. } => (stage, StageState::Running),
            Event::StageCached { stage, .. } => (stage, StageState::Cached),
            Event::StageDone { stage, .. } => (stage, StageState::Done),
            Event::StageInterrupted { stage } => (stage, StageState::Interrupted),
            Event::StageFailed { stage, error: text } => {
                error = Some(text);
                (stage, StageState::Failed)
            }
            Event::StageSkipped { stage, because: input } => {
                because = Some(input);
                (stage, StageState::Skipped)
            }
            _ => return false,
        };
        let first = self.stages.get(&stage).map_or(at, |seen| seen.first);
        self.stages.insert(stage, Seen { state, first, last: at, error, because });
        true
    }

    /// The state of a stage.
    pub(super) fn state(&self, stage: &StageId) -> StageState {
        self.stages.get(stage).map_or(StageState::Waiting, |seen| seen.state)
    }

    /// Why a stage has no artefact, with the stage that failed: its own error, or that of an input.
    pub(super) fn error(&self, stage: &StageId) -> Option<String> {
        let mut at = stage;
        loop {
            let seen = self.stages.get(at)?;
            match (&seen.error, &seen.because) {
                (Some(error), _) if error.contains(&format!("`{at}`")) => return Some(error.clone()),
                (Some(error), _) => return Some(format!("stage `{at}`: {error}")),
                (None, Some(input)) => at = input,
                (None, None) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::Digest;

    #[test]
    fn a_log_says_what_happened_since_the_last_start() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("events.jsonl");
        let key = Digest::of(b"key");
        let started = |stages: &[&str]| Event::RunStarted {
            format: 2,
            name: "nano".into(),
            program: "1".into(),
            stages: stages.iter().map(|&id| id.into()).collect(),
        };
        let before = started(&["old"]).line();
        fs::write(&path, format!("{before}\n"))?;
        let mut log = Log::new(path.clone());
        assert!(!log.more(), "what was there before is of another run");
        let events = [
            started(&["a", "b", "c"]),
            Event::StageCached { stage: "a".into(), key, digest: key, seconds: 1.0 },
            Event::StageStarted { stage: "b".into(), name: "score".into(), key },
            Event::StageFailed { stage: "b".into(), error: "no memory".into() },
            Event::StageSkipped { stage: "c".into(), because: "b".into() },
        ];
        let text: String = events.iter().map(|event| format!("{}\n", event.line())).collect();
        let (whole, cut) = text.split_at(text.len() - 5);
        fs::write(&path, format!("{before}\n{whole}"))?;
        assert!(log.more());
        let states = |log: &Log| ["a", "b", "c"].map(|id| log.happened.state(&id.into()));
        let (cached, failed, skipped) = (StageState::Cached, StageState::Failed, StageState::Skipped);
        assert_eq!(states(&log), [cached, failed, StageState::Waiting]);
        fs::write(&path, format!("{before}\n{whole}{cut}"))?;
        assert!(log.more() && !log.more());
        assert_eq!(states(&log), [cached, failed, skipped]);
        assert_eq!(log.happened.error(&"c".into()).as_deref(), Some("stage `b`: no memory"));
        assert_eq!(log.happened.wanted.len(), 3);
        Ok(())
    }
}
