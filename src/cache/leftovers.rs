//! What killed processes left in the cache. A checkpoint is kept, because the next attempt at its key resumes from it;
//! all else is removed once nobody holds its lock. Errors are ignored: what stays only costs space.

use std::fs;
use std::path::Path;

use super::Store;
use super::pending::is_over;
use crate::base::lock::FileLock;
use crate::base::{Digest, copies, files};

impl Store {
    /// Removes leftovers of other processes. The first artefact that a process makes calls it.
    pub(super) fn remove_leftovers(&self) {
        let places = ["entries", "memo", "last", "leases"].map(|name| self.place(name));
        for folder in places.iter().map(|place| place.as_path()).chain([self.root()]) {
            files::remove_stale(folder);
        }
        for entry in fs::read_dir(self.place("work")).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            match (name.parse(), name.strip_prefix("removed-").map(str::parse)) {
                (Ok(key), _) => self.remove_unfinished(&key, &path),
                (_, Some(Ok(digest))) => self.remove_removed(&digest, &path),
                _ => {}
            }
        }
    }

    /// The output of an attempt that was killed; and its folder, if it left no checkpoint or was finished later.
    fn remove_unfinished(&self, key: &Digest, work: &Path) {
        let output = work.join("output");
        let is_over = || is_over(work) || self.entry_file(key).is_file();
        if (output.exists() || is_over())
            && let Ok(Some(_lock)) = FileLock::attempt(&self.lock_file(&format!("key-{key}")))
        {
            let _ = copies::remove(if is_over() { work } else { &output });
        }
    }

    /// A damaged artefact that was put aside.
    fn remove_removed(&self, digest: &Digest, aside: &Path) {
        if let Ok(Some(_lock)) = FileLock::attempt(&self.lock_file(&format!("artefact-{digest}"))) {
            let _ = copies::remove(aside);
        }
    }
}
