//! What keeps artefacts in the cache: run folders that exist, wherever they are, and pins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::memo::write_hint;
use super::{CacheError, Store};
use crate::base::{Digest, clock, sealed};

/// Something that needs artefacts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// What it is.
    pub kind: RootKind,
    /// A run's folder, or what was pinned, as its user named it.
    #[serde(with = "crate::base::path_text")]
    pub name: PathBuf,
    /// The keys of the artefacts. Of a run, as far as they were known when it was last written here.
    pub keys: Vec<Digest>,
    /// When it was written.
    pub since: String,
}

/// The kinds of roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootKind {
    /// A run folder. It is a root as long as it exists.
    Run,
    /// What a user pinned. It is a root until the user says otherwise.
    Pin,
}

impl Root {
    /// One from now on.
    pub fn new(kind: RootKind, name: &Path, keys: Vec<Digest>) -> Self {
        Self { kind, name: name.to_owned(), keys, since: clock::now() }
    }
}

impl Store {
    /// Writes a root, in the place of one of this kind and name. An error only means that it is not there: a run goes on
    /// without.
    pub fn add_root(&self, root: &Root) -> Result<(), CacheError> {
        let path = self.root_file(root.kind, &root.name);
        write_hint(&path, root).map_err(CacheError::of(&path))
    }

    /// Removes a root; `false` if there is none.
    pub fn remove_root(&self, kind: RootKind, name: &Path) -> Result<bool, CacheError> {
        let path = self.root_file(kind, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true).map_err(CacheError::of(&path)),
        }
    }

    /// All roots. A damaged file is an error: nobody knows what it keeps.
    pub fn roots(&self) -> Result<Vec<Root>, CacheError> {
        let mut roots = Vec::new();
        for path in self.listed("roots")? {
            match sealed::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(CacheError::BrokenRoot { path });
                }
                root => roots.push(root.map_err(CacheError::of(&path))?),
            }
        }
        Ok(roots)
    }

    fn root_file(&self, kind: RootKind, name: &Path) -> PathBuf {
        let kind = match kind {
            RootKind::Run => "run",
            RootKind::Pin => "pin",
        };
        let name = Digest::of(name.as_os_str().as_encoded_bytes());
        self.place("roots").join(format!("{kind}-{name}.json"))
    }
}
