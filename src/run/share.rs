//! What a process does of a run: all of it, or a part while jobs of a batch system do the others.
//!
//! Jobs may run on several machines at once. Each writes the states of its own stages into the record of the run, under a
//! lease, and its events into a log of its own. The last one finds all artefacts in the cache and finishes the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{ExitCode, RunError, RunRecord, StageState};
use crate::base::{Digest, Interrupted, StageId, clock};
use crate::plan::Graph;

/// What a process does of a run.
pub enum Share {
    /// Everything.
    Whole,
    /// It looks up what is in the cache.
    Survey,
    /// Some stages, whose inputs are in the cache or among them.
    Part(Part),
    /// It finishes what other processes have done.
    Last(Box<Last>),
}

/// The stages of a job.
pub struct Part {
    /// By index.
    pub own: BTreeSet<usize>,
    /// The file for the events.
    pub log: PathBuf,
}

/// What is known of the jobs that are over.
pub struct Last {
    /// The record that they have written.
    pub record: RunRecord,
    /// How the jobs of stages ended, as the batch system says.
    pub ended: BTreeMap<StageId, Ended>,
    /// The logs of their events.
    pub logs: Vec<PathBuf>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// In words: `job 17 ran out of memory`.
    pub text: String,
    /// What its exit code would be if it had been able to say it.
    pub code: ExitCode,
    /// What it printed.
    pub log: PathBuf,
}

impl Share {
    /// The stages that this process looks at, of those that a run wants.
    pub(super) fn of(&self, wanted: BTreeSet<usize>, graph: &Graph) -> BTreeSet<usize> {
        match self {
            Self::Part(Part { own, .. }) => {
                own.iter().flat_map(|&index| graph.with_ancestors(index)).collect()
            }
            _ => wanted,
        }
    }

    /// Whether this process makes a stage that the cache lacks.
    pub(super) fn makes(&self, index: usize) -> bool {
        match self {
            Self::Whole => true,
            Self::Survey | Self::Last(_) => false,
            Self::Part(Part { own, .. }) => own.contains(&index),
        }
    }

    /// Whether a job of this run has made the artefact that is in the cache.
    pub(super) fn was_made(&self, stage: &StageId, key: Digest) -> bool {
        let Self::Last(last) = self else { return false };
        let recorded = last.record.stage(stage.as_str());
        recorded.is_some_and(|one| one.state == StageState::Done && one.key == Some(key))
    }

    /// Why a stage has no artefact that another process should have made.
    pub(super) fn missing(&self, stage: &StageId) -> RunError {
        let gone = || RunError::NotMade { stage: stage.clone() };
        let Self::Last(last) = self else { return gone() };
        let recorded = last.record.stage(stage.as_str());
        let (state, error) =
            recorded.map_or((StageState::Waiting, None), |one| (one.state, one.error.clone()));
        let ended = last.ended.get(stage);
        match (state, ended) {
            (StageState::Interrupted, _) | (StageState::Waiting | StageState::Skipped, None) => {
                Interrupted.into()
            }
            (StageState::Failed, ended) => RunError::Job {
                stage: stage.clone(),
                text: error.unwrap_or_else(|| format!("stage `{stage}` failed")),
                code: recorded.and_then(|one| ExitCode::of_number(one.exit_code?)).unwrap_or(ExitCode::Stage),
                log: ended.map(|ended| ended.log.clone()).unwrap_or_default(),
            },
            (_, Some(Ended { code: ExitCode::Interrupted, .. })) => Interrupted.into(),
            (_, Some(Ended { text, code, log })) => RunError::Job {
                stage: stage.clone(),
                text: format!("stage `{stage}`: {text}"),
                code: *code,
                log: log.clone(),
            },
            (_, None) => gone(),
        }
    }

    /// What the log of the run says beside: how the job of a stage ended.
    pub(super) fn note(&self, stage: &StageId) -> Option<String> {
        let Self::Last(last) = self else { return None };
        last.ended.get(stage).map(|ended| ended.text.clone())
    }

    /// When the run was started, if another process started it, and how many seconds ago.
    pub(super) fn started(&self) -> Option<(String, f64)> {
        let Self::Last(last) = self else { return None };
        let started = &last.record.started;
        let seconds = clock::seconds_of(&clock::now())? - clock::seconds_of(started)?;
        Some((started.clone(), seconds.max(0) as f64))
    }
}
