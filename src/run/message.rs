//! What the process of a run and its workers say to each other: one line of JSON each, on the worker's stdin and stdout.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Event, Failure};
use crate::base::{Artefact, Digest};

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// Obtain the artefact of a stage.
    Obtain(Task),
    /// Stop at the next safe point.
    Stop,
}

/// One stage to obtain.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The stage's index in the pipeline, which the worker has read too.
    pub(super) stage: usize,
    /// The key that it must have.
    pub(super) key: Digest,
    /// What it reads, by the names of its inputs.
    pub(super) inputs: BTreeMap<String, Artefact>,
    /// The keys of the intermediate artefacts that the run has made so far.
    pub(super) made: BTreeSet<Digest>,
    /// What is told when the stage has begun.
    pub(super) note: Option<String>,
    /// Its share of the memory, if the run has a limit.
    pub(super) memory: Option<u64>,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// Something happened.
    Event(Event),
    /// The artefact is in the cache.
    Obtained {
        /// Whether this worker made it.
        ran: bool,
        /// The keys of the intermediate artefacts that the run has made so far.
        made: BTreeSet<Digest>,
    },
    /// The stage failed, or stopped on request.
    Failed(Failure),
}
