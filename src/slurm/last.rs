//! What the last job of a run knows of the others.

use std::collections::BTreeMap;
use std::path::Path;

use super::SlurmError;
use super::commands;
use super::record::{self, Submission};
use crate::base::FileError;
use crate::run::{Ended, ExitCode, Last, RunRecord};

/// How the jobs of the run in this folder ended. The states of stages are in its record; Slurm is asked about those that could
/// not say it themselves.
pub fn last(run: &Path) -> Result<Last, SlurmError> {
    let record = RunRecord::read(run).map_err(FileError::at(&run.join("run.json")))?;
    let mut ended = BTreeMap::new();
    if let Some(submission) = Submission::read(run)? {
        // If Slurm does not answer, the record says most.
        let states = commands::states(&submission.ids()).unwrap_or_default();
        for job in submission.jobs {
            let forgotten = || (format!("job {} ended without a result", job.id), ExitCode::Interrupted);
            let (text, code) = states.get(&job.id).map_or_else(forgotten, |state| state.ended(job.id));
            let log = record::log(run, &job.name);
            ended.extend(
                job.stages
                    .into_iter()
                    .map(|stage| (stage, Ended { text: text.clone(), code, log: log.clone() })),
            );
        }
    }
    Ok(Last { record, ended, logs: record::event_logs(run) })
}
