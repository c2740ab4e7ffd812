//! What follows a run: its report, and the user's command.

use std::path::Path;
use std::sync::Arc;

use super::error::CliError;
use super::output::note;
use crate::config::Settings;
use crate::report;
use crate::run::hook::Ending;
use crate::run::{EVENTS, ExitCode, RunError, RunRecord, Share, Sink};
use crate::tracking::{self, Role, Source, Tracker};

/// Begins to tell the MLflow server of the settings, if there is one, of a run that is about to begin.
pub(super) fn track(
    settings: &Settings,
    folder: &Path,
    share: &Share,
    sink: &Arc<dyn Sink>,
) -> Option<Tracker> {
    let server = settings.mlflow.as_ref()?;
    let (role, log) = match share {
        Share::Part(part) => (Role::Part, part.log.clone()),
        Share::Last(_) => (Role::Last, folder.join(EVENTS)),
        Share::Whole | Share::Survey => (Role::Whole, folder.join(EVENTS)),
    };
    let source = Source { folder: folder.to_owned(), log, role };
    Some(Tracker::begin(server, source, Arc::clone(sink)))
}

/// Waits until the server knows what there is to know.
pub(super) fn end(tracker: Option<Tracker>) {
    tracker.into_iter().flat_map(Tracker::end).for_each(|trouble| note(&trouble));
}

/// Writes the report of a run that ended, if it has something new to show, sends what the server misses, and calls the user's
/// command. `before` is the record of the run before it.
pub(super) fn conclude(
    settings: &Settings,
    folder: &Path,
    before: Option<&RunRecord>,
    tracker: Option<Tracker>,
    ended: Result<RunRecord, RunError>,
) -> Result<(), CliError> {
    let page = folder.join(report::FILE);
    let written = if report::is_due(&ended, before, &page) {
        report::write(&[folder.to_owned()], &page)
    } else {
        Ok(())
    };
    if settings.tensorboard
        && let Err(error) = tracking::results(folder)
    {
        note(&format!("TensorBoard does not show the results of {}: {error}", folder.display()));
    }
    end(tracker);
    if let Some(command) = &settings.on_end {
        let code = ended.as_ref().map_or_else(RunError::exit_code, |_| ExitCode::Done);
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let ending = Ending { name: &name, code, folder, report: &page };
        if let Err(reason) = ending.call(command) {
            note(&format!("the command of the setting `on-end` {reason}"));
        }
    }
    // The run's own error comes first.
    ended?;
    Ok(written?)
}
