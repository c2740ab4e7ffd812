//! Errors of the cache.

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::base::files::is_full;
use crate::base::{FileError, Interrupted};

/// Why the cache cannot be used. Damage is not an error: it is reported, and the artefact is made again.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum CacheError {
    /// The folder was written by a newer version of this program (exit code 4).
    #[error(
        "the cache {} has format `{found}`, made by a newer laptop-diff; this one reads format {known}",
        root.display()
    )]
    #[diagnostic(
        code(cache::newer_format),
        help("update laptop-diff, or give it another folder with `--cache FOLDER`")
    )]
    NewerFormat {
        /// The cache folder.
        root: PathBuf,
        /// What its `version` file says.
        found: String,
        /// The format that this program writes.
        known: u32,
    },
    /// The file that should give the format does not (exit code 4).
    #[error("{} says `{found}`, which is no format of a cache", path.display())]
    #[diagnostic(
        code(cache::no_version),
        help(
            "if the folder is a cache of laptop-diff, write `{known}` into this file; else give another with `--cache FOLDER`"
        )
    )]
    NoVersion {
        /// The `version` file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// The format that this program writes.
        known: u32,
    },
    /// A file that says what a run or a pin needs is damaged (exit code 4).
    #[error("{} is damaged: what it keeps in the cache is not known", path.display())]
    #[diagnostic(
        code(cache::broken_root),
        help(
            "remove the file; a run's file is written again by its next `laptop-diff run`, a pin by `laptop-diff cache pin`"
        )
    )]
    BrokenRoot {
        /// The file.
        path: PathBuf,
    },
    /// No space is left, or the user's quota is used up (exit code 4).
    #[error("the disk is full: could not write {}", path.display())]
    #[diagnostic(
        code(cache::full),
        help(
            "free space there, or move the cache with `--cache FOLDER`; then run the same command again to resume"
        )
    )]
    Full {
        /// What was being written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file system of the cache takes no writes (exit code 4).
    #[error("the cache is read-only: could not write {}", path.display())]
    #[diagnostic(
        code(cache::read_only),
        help(
            "results that it has are used, but new ones need a cache that you can write to: `--cache FOLDER`, for `verify` \
             `--scratch FOLDER`. To take along what this one has, first `laptop-diff cache push --cache THIS-ONE` and then \
             `laptop-diff cache pull --cache FOLDER`, both with LAPTOP_DIFF_REMOTE=EMPTY-FOLDER"
        )
    )]
    ReadOnly {
        /// What was being written.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file or folder of the cache could not be read or written (exit code 4).
    #[error("could not use the cache: {0}")]
    #[diagnostic(
        code(cache::file),
        help(
            "make the cache folder readable and writable for this user, or choose another with `--cache FOLDER`"
        )
    )]
    File(#[source] FileError),
    /// Asked to stop while waiting for another process (exit code 130).
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl CacheError {
    /// Classifies an error of the file system; `path` is what was being read or written.
    pub(super) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted(Interrupted),
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
            _ if is_full(&source) => Self::Full { path, source },
            _ => Self::File(FileError { path, source }),
        }
    }
}
