//! The run folder: the record, the event log, and a link from each stage to its artefact.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Event, RunError, RunRecord, Sink, StageRecord, StageState};
use crate::base::{FileError, StageId, files};

/// `runs/NAME/`.
pub(super) struct RunFolder {
    path: PathBuf,
    log: File,
    /// The stages whose states this process writes, if others write the record too.
    own: Option<BTreeSet<StageId>>,
    progress: Mutex<BTreeMap<StageId, LoggedProgress>>,
}

/// The log holds little of a stage's progress: enough to say where a run stopped.
#[derive(Default)]
struct LoggedProgress {
    /// When the log last took progress of the stage, or its start.
    at: Option<Instant>,
    /// The last progress, if it is not in the log.
    held: Option<Event>,
}

/// How many bytes of a line hold its time: `{"at":"2026-08-01T12:00:00Z`.
const TIME: usize = 27;

/// How often the log takes progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

impl RunFolder {
    /// The folder at `path`; `log` is the file for the events in it.
    pub(super) fn open(path: &Path, log: &Path) -> Result<Self, RunError> {
        let open = || {
            fs::create_dir_all(path)?;
            let path = fs::canonicalize(path)?;
            files::remove_stale(&path);
            let log = File::options().create(true).append(true).open(path.join(log))?;
            Ok(Self { path, log, own: None, progress: Mutex::default() })
        };
        open().map_err(RunFolder::error(path))
    }

    /// The same folder, of whose record this process writes some stages only.
    pub(super) fn with_part(self, own: BTreeSet<StageId>) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Takes the events of jobs into the log of the run, in the order of their times.
    pub(super) fn gather(&self, logs: &[PathBuf]) {
        let texts: Vec<String> = logs.iter().filter_map(|log| fs::read_to_string(log).ok()).collect();
        // Each line begins with its time.
        let mut lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
        lines.sort_by_key(|line| line.get(..TIME).map(str::to_owned));
        let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if (&self.log).write_all(all.as_bytes()).is_ok() {
            logs.iter().for_each(|log| drop(fs::remove_file(log)));
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `run.json`.
    pub(super) fn write(&self, record: &RunRecord) -> Result<(), RunError> {
        let path = self.path.join("run.json");
        // A job in its second turn finds what it made in its first.
        let was_made = |old: &StageRecord, new: &StageRecord| {
            (old.state, new.state) == (StageState::Done, StageState::Cached) && old.key == new.key
        };
        let write = |own: &BTreeSet<StageId>| {
            RunRecord::update(&self.path, |whole| {
                let known = whole.stages.iter_mut().zip(&record.stages);
                known
                    .filter(|(old, new)| own.contains(&new.id) && !was_made(old, new))
                    .for_each(|(old, new)| old.clone_from(new));
            })
        };
        let written = self.own.as_ref().map_or_else(|| record.write(&self.path), write);
        written.map_err(Self::error(&path))
    }

    /// Updates the links: one per stage that has an artefact. Old links are removed, but only links into the cache.
    pub(super) fn link(&self, record: &RunRecord, cache: &Path) -> Result<(), RunError> {
        for stage in &record.stages {
            if let Some(artefact) = &stage.artefact {
                let link = self.path.join(stage.id.as_str());
                files::replace_link(&artefact.path, &link).map_err(Self::error(&link))?;
            }
        }
        for entry in fs::read_dir(&self.path).map_err(Self::error(&self.path))?.flatten() {
            let name = entry.file_name();
            let linked = |name: &str| record.stage(name).is_some_and(|stage| stage.artefact.is_some());
            let is_ours = || fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(cache));
            if !name.to_str().is_some_and(linked) && is_ours() {
                fs::remove_file(entry.path()).map_err(Self::error(&entry.path()))?;
            }
        }
        Ok(())
    }

    fn error(path: &Path) -> impl FnOnce(io::Error) -> RunError {
        let named = FileError::at(path);
        move |source| RunError::Folder(named(source))
    }
}

/// The log holds every event, but only some of the progress. One write per line, in append mode, keeps the lines whole
/// when two runs share a folder. A full disk is reported elsewhere.
impl Sink for RunFolder {
    fn event(&self, event: &Event) {
        let log = |event: &Event| drop((&self.log).write_all(format!("{}\n", event.line()).as_bytes()));
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stage) = event.stage() else { return log(event) };
        let progress = all.entry(stage.clone()).or_default();
        let recent = progress.at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY);
        if matches!(event, Event::StageProgress { .. }) && recent {
            progress.held = Some(event.clone());
            return;
        }
        match event {
            Event::StageFailed { .. } | Event::StageInterrupted { .. } => {
                progress.held.take().iter().for_each(log);
            }
            // A training tells its loss every second; that must not keep its progress out of the log.
            Event::StageProgress { .. } | Event::StageStarted { .. } => {
                (progress.held, progress.at) = (None, Some(Instant::now()));
            }
            _ => {}
        }
        log(event);
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::EVENTS;
    use super::*;

    #[test]
    fn the_last_progress_before_an_interruption_is_logged_whatever_came_between() -> Result<(), RunError> {
        let at = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::open(at.path(), Path::new(EVENTS))?;
        let progress = |done| {
            let (stage, unit) = ("retrained".into(), "steps".to_owned());
            folder.event(&Event::StageProgress { stage, done, total: 9, unit });
        };
        progress(1);
        progress(2);
        progress(3);
        folder.event(&Event::StageNote { stage: "retrained".into(), text: "the loss falls".to_owned() });
        folder.event(&Event::StageInterrupted { stage: "retrained".into() });
        let log = fs::read_to_string(at.path().join(EVENTS)).expect("a log");
        let done: Vec<bool> = [1, 2, 3].iter().map(|n| log.contains(&format!("\"done\":{n}"))).collect();
        assert_eq!((done, log.lines().count()), (vec![true, false, true], 4), "{log}");
        Ok(())
    }
}
