//! What follows a run: its report, and the user's command.

use std::path::Path;

use super::error::CliError;
use super::output::note;
use crate::config::Settings;
use crate::report;
use crate::run::hook::Ending;
use crate::run::{ExitCode, RunError, RunRecord};

/// Writes the report of a run that ended, if it has something new to show, and calls the user's command. `before` is the record
/// of the run before it.
pub(super) fn conclude(
    settings: &Settings,
    folder: &Path,
    before: Option<&RunRecord>,
    ended: Result<RunRecord, RunError>,
) -> Result<(), CliError> {
    let page = folder.join(report::FILE);
    let written = if report::is_due(&ended, before, &page) {
        report::write(&[folder.to_owned()], &page)
    } else {
        Ok(())
    };
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
