//! Whether a run gave the report something new to show.

use std::path::Path;

use crate::plan::PlanError;
use crate::run::{RunError, RunRecord, StageRecord, StageState};

/// Whether the report at `page` must be written after a run; `before` is the record of the run before it.
pub fn is_due(ended: &Result<RunRecord, RunError>, before: Option<&RunRecord>, page: &Path) -> bool {
    match ended {
        Ok(record) => is_stale(record, before, page),
        // The run ended before any stage ran.
        Err(
            RunError::UnknownStage { .. } | RunError::Plan(PlanError::Config(_)) | RunError::Interrupted(_),
        ) => false,
        // The stages that did run are worth a report, and it says which are missing.
        Err(_) => true,
    }
}

/// Whether the page does not show the artefacts of this run. A run whose stages were all cached, with the artefacts that
/// they had before, leaves the page alone, also with `--until`.
fn is_stale(record: &RunRecord, before: Option<&RunRecord>, page: &Path) -> bool {
    let digest = |stage: &StageRecord| stage.artefact.as_ref().map(|artefact| artefact.digest);
    let differs = |(old, new): (&StageRecord, &StageRecord)| {
        old.id != new.id || old.gates != new.gates || (digest(new).is_some() && digest(new) != digest(old))
    };
    let is_other = |before: &RunRecord| {
        before.stages.len() != record.stages.len() || before.stages.iter().zip(&record.stages).any(differs)
    };
    record.count(StageState::Done) > 0 || !page.is_file() || before.is_none_or(is_other)
}
