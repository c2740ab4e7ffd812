//! A cache for one purpose that is removed afterwards, and artefacts that it borrows from another one without a copy.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{CacheError, Entry, Store};
use crate::base::lock::FileLock;
use crate::base::{copies, sealed};

/// The names of scratch folders begin like this.
const PREFIX: &str = ".scratch-";

/// A folder that is removed when it is dropped, or by the next collection if its process was killed.
pub struct Scratch {
    folder: TempDir,
    _lock: Option<FileLock>,
}

impl Scratch {
    /// A new one in a folder.
    pub fn new(place: &Path) -> Result<Self, CacheError> {
        let make = || {
            fs::create_dir_all(place)?;
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            let lock = FileLock::attempt(&folder.path().join("lock"))?;
            Ok(Self { folder, _lock: lock })
        };
        make().map_err(CacheError::of(place))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes those of killed processes. Errors are ignored: what stays only costs space.
    pub(super) fn remove_abandoned(place: &Path) {
        for lock in Self::locks(place) {
            if let (Ok(false), Some(folder)) = (FileLock::is_held(&lock), lock.parent()) {
                let _ = copies::remove(folder);
            }
        }
    }

    /// The locks of all scratch folders in a folder.
    pub(super) fn locks(place: &Path) -> Vec<PathBuf> {
        let names = fs::read_dir(place).into_iter().flatten().flatten();
        let scratch =
            names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        scratch.map(|entry| entry.path().join("lock")).collect()
    }
}

impl Store {
    /// Enters an artefact of another cache in this one, by a link to its folder.
    pub fn borrow(&self, from: &Store, entry: &Entry) -> Result<(), CacheError> {
        self.prepare()?;
        let (folder, path) = (self.artefact_folder(&entry.digest), self.entry_file(&entry.key));
        let link = || {
            fs::create_dir_all(self.place("artefacts"))?;
            copies::remove(&folder)?;
            std::os::unix::fs::symlink(from.artefact_folder(&entry.digest), &folder)?;
            sealed::write(&path, entry)
        };
        link().map_err(CacheError::of(&path))
    }
}
