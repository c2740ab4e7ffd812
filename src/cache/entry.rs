//! The cache's record of one key, and how an artefact can be damaged.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Tree;
use crate::base::manifest::TRAINING_STATE;
use crate::base::{ArtefactKind, Digest, Manifest};

/// The record of a finished stage, in `entries/KEY.json`, which is sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Hash of the manifest.
    pub key: Digest,
    /// What the artefact depends on.
    pub manifest: Manifest,
    /// Digest of the artefact's files.
    pub digest: Digest,
    /// The files.
    pub files: Tree,
    /// Names of hidden files, which do not enter the digest: each is sealed, so that it can be checked by itself.
    pub hidden: Vec<String>,
    /// Keys of the intermediate artefacts that it was made of: who needs it needs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Digest>,
    /// How it was made.
    pub made: Made,
}

/// How an artefact was made: for the record, never for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The kind of artefact.
    pub kind: ArtefactKind,
    /// How long the stage ran; of a resumed one, the attempt that finished it.
    pub seconds: f64,
    /// Peak memory of the process while the stage ran, if the system reports it.
    pub peak_bytes: Option<u64>,
    /// When it was finished.
    pub finished: String,
    /// The version of this program.
    pub program: String,
}

/// An artefact whose bytes are not those that were committed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Damage {
    /// The file; or the artefact's folder if all of it is missing.
    pub path: PathBuf,
    /// The expected digest.
    pub expected: Option<Digest>,
    /// The digest found.
    pub found: Option<Digest>,
}

impl Entry {
    /// The stage with its version, such as `score@3`.
    pub fn stage(&self) -> &str {
        self.manifest.get("stage").unwrap_or("unknown")
    }

    /// Whether it only lets later trainings begin further on.
    pub fn is_training_state(&self) -> bool {
        self.manifest.get(TRAINING_STATE).is_some()
    }

    /// Whether the entry is consistent in itself.
    pub(super) fn is_sound(&self, key: &Digest) -> bool {
        self.key == *key && self.manifest.key() == *key && self.files.digest() == self.digest
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => {
                write!(f, "{path} is damaged: expected {}, found {}", expected.short(), found.short())
            }
            (Some(expected), None) => write!(f, "{path} is missing: expected {}", expected.short()),
            (None, Some(found)) => {
                write!(f, "{path} is not part of the artefact: expected nothing, found {}", found.short())
            }
            (None, None) => write!(f, "{path} is damaged: it is not what was written"),
        }
    }
}
