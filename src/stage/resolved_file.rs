//! The file or repository that a parameter names, and the part of it that enters the key.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::Digest;
use crate::model::files::hub::Pinned;

/// The file or repository that a parameter of [`super::Stage::files`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedFile {
    /// A file or folder that exists.
    Path(PathBuf),
    /// A repository of the hub; its files are downloaded when the stage runs.
    Repository(Pinned),
    /// Nothing that can be had now. A plan is made all the same; a run ends before its first stage.
    Missing(MissingFile),
}

/// A file, folder or repository that is not on this machine and cannot be downloaded now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// Its path or name, as written.
    pub what: String,
    /// Why it cannot be had.
    pub reason: String,
    /// Where it can be had, and how big it is.
    pub from: String,
}

impl fmt::Display for MissingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.reason, self.from)
    }
}

/// The path of a file that [`super::Stage::files`] lists without a revision.
pub(super) fn path_of<'f>(files: &'f BTreeMap<String, ResolvedFile>, name: &str) -> &'f Path {
    let file = files.get(name).unwrap_or_else(|| panic!("BUG: file `{name}` was not resolved"));
    file.path().unwrap_or_else(|| panic!("BUG: `{name}` is a repository"))
}

impl ResolvedFile {
    /// The part that enters the key; `digest` computes the digest of a path. The commit of a repository determines
    /// its files, so planning downloads nothing.
    pub fn contents<E>(&self, digest: impl FnOnce(&Path) -> Result<Digest, E>) -> Result<Contents, E> {
        Ok(match self {
            Self::Path(path) => Contents::Digest(digest(path)?),
            Self::Repository(pinned) => Contents::Commit(pinned.commit.clone()),
            Self::Missing(missing) => Contents::Unknown(missing.what.clone()),
        })
    }

    /// The path, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Repository(_) | Self::Missing(_) => None,
        }
    }

    /// The repository, if it is one.
    pub fn repository(&self) -> Option<&Pinned> {
        match self {
            Self::Path(_) | Self::Missing(_) => None,
            Self::Repository(pinned) => Some(pinned),
        }
    }

    /// What is missing.
    pub fn missing(&self) -> Option<&MissingFile> {
        match self {
            Self::Path(_) | Self::Repository(_) => None,
            Self::Missing(missing) => Some(missing),
        }
    }
}

/// What determines the bytes of a [`ResolvedFile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The digest of a file or folder.
    Digest(Digest),
    /// A commit of a repository.
    Commit(String),
    /// What is not on this machine.
    Unknown(String),
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Commit(commit) => write!(f, "commit {commit}"),
            Self::Unknown(what) => write!(f, "{what}, which is not on this machine"),
        }
    }
}
