//! The model that a command works on: a path, or a checkpoint of a training that is not over, by the name of its stage
//! in the run folder: `runs/x/retrained@latest`, or `@400` for the one of step 400.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::CliError;
use super::output::note;
use super::recorded;
use crate::base::FileError;
use crate::distill;
use crate::run::{RunRecord, StageRecord, Stopped, Unfinished};
use crate::stage;

/// A model to read.
pub(super) struct Subject {
    path: PathBuf,
    /// Removed when the command is over.
    _folder: Option<TempDir>,
}

/// Which checkpoint.
enum Which {
    Latest,
    Step(u64),
}

impl Subject {
    /// Finds the model, and checks it if it is an artefact.
    pub(super) fn open(given: &Path) -> Result<Self, CliError> {
        if !given.exists()
            && let Some((folder, name, which)) = named(given)
            && let Ok(record) = RunRecord::read(folder)
            && let Some(stage) = record.stage(name)
        {
            return Self::of_stage(given, folder, &record, stage, which);
        }
        recorded::check(given)?;
        Ok(Self { path: given.to_owned(), _folder: None })
    }

    /// The path of the model.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn of_stage(
        given: &Path,
        folder: &Path,
        record: &RunRecord,
        stage: &StageRecord,
        which: Which,
    ) -> Result<Self, CliError> {
        let id = stage.id.as_str();
        if let (Some(_), Which::Latest) = (&stage.artefact, &which) {
            note(&format!("`{id}` is finished: its result is used"));
            let path = folder.join(id);
            recorded::check(&path)?;
            return Ok(Self { path, _folder: None });
        }
        let none = |reason: String| CliError::NoCheckpoint { path: given.to_owned(), reason };
        if !stage::has_model(&stage.stage) {
            return Err(none(format!("the checkpoints of `{}` are no models", stage.stage)));
        }
        if stage.artefact.is_some() {
            return Err(none(format!("`{id}` is finished, and its checkpoints are removed")));
        }
        let work = Unfinished::of(record, stage)?;
        let (Some(work), Some(student)) = (work, record.input(id, "student")) else {
            let stopped = Stopped::of(record, folder, id).map(|stopped| stopped.to_string());
            return Err(none(stopped.unwrap_or_else(|| format!("stage `{id}` has not run"))));
        };
        Self::of_checkpoint(id, &work, student, &which, none)
    }

    fn of_checkpoint(
        id: &str,
        work: &Unfinished,
        student: &Path,
        which: &Which,
        none: impl Fn(String) -> CliError,
    ) -> Result<Self, CliError> {
        let output = tempfile::tempdir().map_err(FileError::at(&std::env::temp_dir()))?;
        let step = match which {
            Which::Latest => None,
            Which::Step(step) => Some(*step),
        };
        let mut told = Vec::new();
        let mut damaged = |name: &str| {
            if !told.iter().any(|one| one == name) {
                note(&format!("the checkpoint {name} is damaged and not used"));
                told.push(name.to_owned());
            }
        };
        let found = stage::write_model(student, &work.checkpoint, step, output.path(), &mut damaged)?;
        let Some(found) = found else {
            let steps = distill::steps(&work.checkpoint).map_err(stage::StageError::from)?;
            let steps: Vec<_> = steps.iter().map(u64::to_string).collect();
            let wanted = step.map_or_else(String::new, |step| format!(" of step {step}"));
            return Err(none(match steps.len() {
                0 => format!("`{id}` has written no checkpoint{wanted} yet"),
                _ => format!(
                    "`{id}` has no whole checkpoint{wanted}; it has those of steps {}",
                    steps.join(" and ")
                ),
            }));
        };
        let what = if found.averaged { "the moving average of the weights" } else { "the weights" };
        let state = if work.running { "is running" } else { "is not running now" };
        note(&format!("{what} after step {} of `{id}`, which {state}", found.step));
        Ok(Self { path: output.path().to_owned(), _folder: Some(output) })
    }
}

/// Run folder, stage and checkpoint of `runs/x/retrained@latest`. Stages of a sweep have an `@` of their own.
fn named(given: &Path) -> Option<(&Path, &str, Which)> {
    let (name, which) = given.file_name()?.to_str()?.rsplit_once('@')?;
    let which = match which {
        "latest" => Which::Latest,
        step => Which::Step(step.parse().ok()?),
    };
    let folder = given.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::metadata(folder).ok()?.is_dir().then_some((folder, name, which))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_named_by_its_stage_and_step() -> std::io::Result<()> {
        let run = tempfile::tempdir()?;
        let name = |text: &str| {
            let path = run.path().join(text);
            named(&path).map(|(_, name, which)| match which {
                Which::Latest => (name.to_owned(), None),
                Which::Step(step) => (name.to_owned(), Some(step)),
            })
        };
        assert_eq!(name("retrained@latest"), Some(("retrained".to_owned(), None)));
        assert_eq!(name("retrained@400"), Some(("retrained".to_owned(), Some(400))));
        assert_eq!(name("retrained@ratio=0.3@latest"), Some(("retrained@ratio=0.3".to_owned(), None)));
        assert_eq!(name("retrained@ratio=0.3"), None);
        assert_eq!(name("absent/retrained@latest"), None);
        Ok(())
    }
}
