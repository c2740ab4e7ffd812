//! What a run would do with a stage, as data: a reason is a type with the old and the new value.

use std::fmt;

use serde::Serialize;

use crate::base::manifest::Change;
use crate::base::{Digest, StageId};
use crate::model::files::hub::Pinned;

/// What would become of one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The stage's id.
    pub id: StageId,
    /// Its `use:` name.
    pub stage: String,
    /// The repositories of the hub that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Pinned>,
    /// Cached, or not.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing: its artefact is there.
    Cached {
        /// The key.
        key: Digest,
        /// How long it took to make.
        seconds: f64,
    },
    /// Run it.
    Runs {
        /// The key.
        key: Digest,
        /// Why.
        reasons: Vec<Reason>,
    },
    /// Run it if what it reads comes out different; that is known once the others have run.
    Waits {
        /// The stages whose artefacts it reads and which are not there yet.
        inputs: Vec<StageId>,
        /// What makes it run in any case.
        reasons: Vec<Reason>,
    },
}

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// This cache has not seen the stage in a pipeline of this name.
    NoEarlierRun,
    /// A value differs from that of the last run.
    Changed(Change),
    /// Nothing changed, but the artefact is not in the cache.
    Gone,
    /// The artefact is there, but with other bytes than it was given.
    Damaged {
        /// Which file, with the digests.
        what: String,
    },
}

impl Outcome {
    /// Whether a run would have nothing to do here.
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
            Self::Changed(Change { name, old, new }) => match (old, new) {
                (Some(old), Some(new)) => write!(f, "{name}: {} -> {}", shown(old), shown(new)),
                (None, Some(new)) => write!(f, "{name}: new, {}", shown(new)),
                (Some(old), None) => write!(f, "{name}: gone, was {}", shown(old)),
                (None, None) => f.write_str(name),
            },
        }
    }
}

/// A value of a manifest; of a digest, as much as people compare.
fn shown(value: &str) -> String {
    value.parse::<Digest>().map_or_else(|_| value.to_owned(), |digest| digest.short())
}
