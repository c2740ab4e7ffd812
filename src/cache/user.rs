//! The file in which a process writes down the keys that it uses.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::base::lock::FileLock;

/// The file of this process. Its lock says that the process lives.
pub(super) struct User {
    path: PathBuf,
    lock_path: PathBuf,
    keys: Mutex<File>,
    lock: FileLock,
}

/// What this process has told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) user: Option<User>,
    pub(super) lines: BTreeSet<String>,
}

impl User {
    /// Begins a new file; `None` if another process has this lock.
    pub(super) fn begin(path: PathBuf, lock_path: PathBuf) -> io::Result<Option<Self>> {
        let Some(lock) = FileLock::attempt(&lock_path)? else { return Ok(None) };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let keys = Mutex::new(File::options().create_new(true).append(true).open(&path)?);
        Ok(Some(Self { path, lock_path, keys, lock }))
    }

    /// Whether others still count this process as living. After a long suspension, those on other machines do not.
    pub(super) fn is_ours(&self) -> bool {
        self.lock.is_ours()
    }

    /// Adds a line.
    pub(super) fn add(&self, line: &str) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = keys.write_all(format!("{line}\n").as_bytes());
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // If they stay, the next collection removes them.
        let _ = fs::remove_file(&self.path).and_then(|()| fs::remove_file(&self.lock_path));
    }
}
