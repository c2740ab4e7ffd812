//! A cache for one purpose that is removed afterwards, and artefacts that it borrows from another one without a copy.

use std::fs;
use std::path::Path;

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
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let is_scratch = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
            if is_scratch && matches!(FileLock::is_held(&entry.path().join("lock")), Ok(false)) {
                let _ = copies::remove(&entry.path());
            }
        }
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
