//! Removes what nobody needs. First a collection says what, why and how much; then it is carried out, one thing after the
//! other, each under the locks by which others use or make it.
//!
//! Never removed: what a run folder or a pin needs, with the parts it was made of, and what a living process uses. Only
//! checkpoints and the states of finished trainings, which nothing but a longer or a resumed run reads, may have an age
//! by which they go in any case.

mod freed;
mod plan;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Contents, Kept};
use crate::base::Digest;

/// What is to be removed of what nobody needs.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Everything.
    pub all: bool,
    /// What was not used for so long.
    pub older_than: Option<Duration>,
    /// Checkpoints and states of trainings that were not used for so long, also those of runs.
    pub checkpoints_older_than: Option<Duration>,
    /// Nothing but what has these keys or digests.
    pub only: Option<BTreeSet<Digest>>,
    /// What was not used for longest, until the cache is not larger than this.
    pub max_bytes: Option<u64>,
}

/// Keys and digests that somebody needs, each with their names.
#[derive(Clone, Debug, Default)]
pub struct Needed(BTreeMap<Digest, Vec<String>>);

impl Needed {
    /// `by` needs the artefact of this key, or with this digest.
    pub fn add(&mut self, digest: Digest, by: &str) {
        let names = self.0.entry(digest).or_default();
        if !names.iter().any(|name| name == by) {
            names.push(by.to_owned());
        }
    }

    /// Who needs the artefact of this key or digest.
    pub fn by(&self, digest: &Digest) -> &[String] {
        self.0.get(digest).map_or(&[], Vec::as_slice)
    }

    /// Whoever needs an artefact, finished or not, needs its parts.
    pub fn add_parts(&mut self, contents: &Contents) {
        for Kept { entry, .. } in &contents.entries {
            self.add_parts_of(&[entry.key, entry.digest], &entry.parts);
        }
        contents.work.iter().for_each(|work| self.add_parts_of(&[work.key], &work.parts));
    }

    fn add_parts_of(&mut self, whole: &[Digest], parts: &[Digest]) {
        let names: Vec<String> = whole.iter().flat_map(|digest| self.by(digest).to_vec()).collect();
        for part in parts {
            names.iter().for_each(|name| self.add(*part, name));
        }
    }
}

/// What would be removed.
#[derive(Debug)]
pub struct Collection {
    /// In the order of removal.
    pub candidates: Vec<Candidate>,
    /// What the cache takes now.
    pub bytes: u64,
    /// What it takes afterwards.
    pub left: u64,
    /// The entries of the cache when this was found out: digest of the artefact, and when it was last used.
    known: BTreeMap<Digest, (Digest, SystemTime)>,
}

/// Something that may be removed.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// What it is.
    #[serde(flatten)]
    pub thing: Thing,
    /// The stage that made it, or its key.
    pub stage: String,
    /// Why it may go.
    pub reason: Reason,
    /// What its removal frees: files that others share stay.
    pub bytes: u64,
    /// How long ago it was last used.
    pub unused_seconds: u64,
}

/// The things that are removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "thing", rename_all = "kebab-case")]
pub enum Thing {
    /// An artefact with its entries.
    Artefact {
        /// Its digest.
        digest: Digest,
        /// The keys of its entries.
        keys: Vec<Digest>,
    },
    /// The checkpoint of unfinished work.
    Checkpoint {
        /// The key.
        key: Digest,
    },
}

/// Why something may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No run and no pin needs it.
    Unneeded,
    /// No run and no pin needs it, and it was not used for as long as was asked.
    Unused,
    /// No run and no pin needs it, it was not used for longest, and the cache is too large.
    Size,
    /// A checkpoint that nobody has resumed from for as long as was asked.
    Checkpoint,
    /// The state of a finished training that nobody has gone on from for as long as was asked.
    TrainingState,
}

impl Reason {
    /// The reason in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unneeded => "no run and no pin needs it",
            Self::Unused => "no run and no pin needs it, and it was not used for long enough",
            Self::Size => "no run and no pin needs it, and the cache is too large",
            Self::Checkpoint => "checkpoint of work that nobody resumed",
            Self::TrainingState => "state of a training that nobody went on from",
        }
    }
}

/// What a collection has removed.
#[derive(Debug, Default)]
pub struct Collected {
    /// What is gone.
    pub removed: Vec<Candidate>,
    /// What somebody has begun to use meanwhile.
    pub spared: Vec<Candidate>,
}
