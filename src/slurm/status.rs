//! The jobs of a run as they are now, and their end on request.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::SlurmError;
use super::commands::{self, JobState};
use super::record::{self, JobId, LAST, Submission};
use crate::base::{FileError, StageId, clock};
use crate::run::{ExitCode, RunRecord, StageState};

/// How long cancelled jobs are waited for: Slurm kills what does not end within `KillWait`, by default 30 seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// One job of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobStatus {
    /// Its number.
    pub id: JobId,
    /// The name of its files.
    pub name: String,
    /// Its stages; none for the job that finishes the run.
    pub stages: Vec<StageId>,
    /// Slurm's word for its state; none if Slurm has forgotten it.
    pub state: Option<String>,
    /// Whether it runs or will run.
    pub live: bool,
    /// Why it waits.
    pub reason: Option<String>,
    /// Where it runs.
    pub nodes: Option<String>,
    /// For how long.
    pub elapsed: Option<String>,
    /// What it printed.
    pub log: PathBuf,
}

/// Whether a run was submitted to Slurm.
pub fn has_jobs(run: &Path) -> bool {
    Submission::read(run).is_ok_and(|record| record.is_some())
}

/// The jobs of the run in a folder, the last one at the end; none if it was not submitted.
pub fn jobs(run: &Path) -> Result<Vec<JobStatus>, SlurmError> {
    let Some(submission) = Submission::read(run)? else { return Ok(Vec::new()) };
    let states = match commands::states(&submission.ids()) {
        // A run folder may be looked at anywhere.
        Err(SlurmError::Absent { .. }) => BTreeMap::new(),
        states => states?,
    };
    let status = |id: JobId, name: String, stages: Vec<StageId>| {
        let state = states.get(&id).cloned();
        let live = state.as_ref().is_some_and(JobState::is_live);
        let JobState { state: word, reason, nodes, elapsed, .. } = state.clone().unwrap_or_default();
        let log = record::log(run, &name);
        JobStatus { id, name, stages, state: state.map(|_| word), live, reason, nodes, elapsed, log }
    };
    let jobs = submission.jobs.into_iter().map(|job| status(job.id, job.name, job.stages));
    let mut all: Vec<JobStatus> = jobs.collect();
    all.extend(submission.last.map(|id| status(id, LAST.to_owned(), Vec::new())));
    Ok(all)
}

/// Cancels the jobs of the run in a folder, and records that it was interrupted. Those that run write their checkpoints. Gives
/// how many there were.
pub fn cancel(run: &Path) -> Result<usize, SlurmError> {
    let run = &fs::canonicalize(run).map_err(FileError::at(run))?;
    let Some(submission) = Submission::read(run)? else {
        return Err(SlurmError::NoJobs { folder: run.clone() });
    };
    let live = || -> Result<Vec<JobId>, SlurmError> {
        let states = commands::states(&submission.ids())?;
        Ok(states.into_iter().filter(|(_, state)| state.is_live()).map(|(id, _)| id).collect())
    };
    let found = live()?;
    if found.is_empty() {
        return Ok(0);
    }
    let mark = record::cancelled(run);
    fs::write(&mark, []).map_err(FileError::at(&mark))?;
    commands::cancel(&found)?;
    let until = Instant::now() + PATIENCE;
    while !live()?.is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(500));
    }
    let updated = RunRecord::update(run, |record| {
        for stage in record.stages.iter_mut().filter(|stage| stage.state == StageState::Running) {
            stage.state = StageState::Interrupted;
        }
        record.finished = Some(clock::now());
        record.exit_code = Some(ExitCode::Interrupted.number());
    });
    updated.map_err(FileError::at(&run.join("run.json")))?;
    Ok(found.len())
}
