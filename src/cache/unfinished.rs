//! Work that has no artefact yet: its checkpoint can be read while another process writes it.

use std::path::PathBuf;

use super::{CacheError, Store};
use crate::base::Digest;
use crate::base::lock::FileLock;

impl Store {
    /// The folder in which the work of a key keeps its checkpoint, if there is any. It may be written to at this moment.
    pub fn checkpoint_of(&self, key: &Digest) -> Option<PathBuf> {
        Some(self.work_folder(key).join("checkpoint")).filter(|folder| folder.is_dir())
    }

    /// Whether a process is making the artefact of this key.
    pub fn is_at_work(&self, key: &Digest) -> Result<bool, CacheError> {
        let lock = self.lock_file(&format!("key-{key}"));
        FileLock::is_held(&lock).map_err(CacheError::of(&lock))
    }
}
