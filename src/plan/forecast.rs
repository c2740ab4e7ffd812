//! The forecast of a run as data: a reason is a type with the old and the new value.

use std::fmt;

use serde::Serialize;

use crate::base::manifest::Change;
use crate::base::{Digest, StageId};
use crate::cache::{FileChange, How};
use crate::model::files::hub::Pinned;

/// The forecast for one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The stage's id.
    pub id: StageId,
    /// Its `use:` name.
    pub stage: String,
    /// The repositories of the hub that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Pinned>,
    /// What it reads that is not on this machine, and where that comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What it can use of earlier runs, or why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<String>,
    /// Its outcome: cached, or not.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of a stage in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The stage does not run: its artefact is cached.
    Cached {
        /// The key.
        key: Digest,
        /// How long it took to produce.
        seconds: f64,
    },
    /// The stage runs.
    Runs {
        /// The key.
        key: Digest,
        /// The reasons.
        reasons: Vec<Reason>,
    },
    /// The stage runs if its inputs change, which is known once the stages that produce them have run.
    Waits {
        /// The inputs whose artefacts are missing, as stage ids.
        inputs: Vec<StageId>,
        /// Reasons to run it in any case.
        reasons: Vec<Reason>,
    },
}

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// The cache has no earlier run of the stage in a pipeline of this name.
    NoEarlierRun,
    /// A value differs from that in the last run.
    Changed(Change),
    /// Files of a folder differ from those in the last run.
    Files {
        /// The name of the value: `file model`.
        name: String,
        /// The first of them.
        first: Vec<FileChange>,
        /// How many there are.
        count: usize,
    },
    /// Nothing changed, but the artefact is not in the cache.
    Gone,
    /// The artefact is damaged.
    Damaged {
        /// Which file, with the digests.
        what: String,
    },
}

impl Outcome {
    /// The same with other reasons.
    pub(super) fn map_reasons(mut self, map: impl FnMut(Reason) -> Reason) -> Self {
        if let Self::Runs { reasons, .. } | Self::Waits { reasons, .. } = &mut self {
            *reasons = std::mem::take(reasons).into_iter().map(map).collect();
        }
        self
    }

    /// Whether the artefact is cached.
    pub fn is_cached(&self) -> bool {
        matches!(self, Self::Cached { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEarlierRun => f.write_str("no earlier run"),
            Self::Gone => f.write_str("its artefact is not in the cache"),
            Self::Damaged { what } => f.write_str(what),
            Self::Files { name, first, count } => {
                let told: Vec<_> = first.iter().map(told).collect();
                write!(f, "{name}: {}", told.join(", "))?;
                match count - first.len() {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more"),
                }
            }
            Self::Changed(Change { name, old, new }) => match (old, new) {
                (Some(old), Some(new)) => write!(f, "{name}: {} -> {}", shown_value(old), shown_value(new)),
                (None, Some(new)) => write!(f, "{name}: new, {}", shown_value(new)),
                (Some(old), None) => write!(f, "{name}: removed, was {}", shown_value(old)),
                (None, None) => f.write_str(name),
            },
        }
    }
}

fn told(FileChange { path, how }: &FileChange) -> String {
    let how = match how {
        How::Changed => "changed",
        How::New => "is new",
        How::Gone => "is gone",
    };
    format!("{path} {how}")
}

/// A value of a manifest for people: digests are shortened.
pub fn shown_value(value: &str) -> String {
    value.parse::<Digest>().map_or_else(|_| value.to_owned(), |digest| digest.short())
}
