//! Which keys living processes use, so that nothing is removed under them.
//!
//! A process writes a key into its file before it looks the key up. Whoever removes an entry first takes it away and reads
//! the files afterwards: then either the process finds no entry, or its key is found, and the entry is put back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::user::User;
use super::{CacheError, Store};
use crate::base::lock::FileLock;
use crate::base::{Digest, clock, path_text};

/// A line that names the folder of a run, and no key.
const RUN: &str = "run ";

impl Store {
    /// Keeps the artefact of this key, if there is one, as long as this process lives. On a disk that takes no writes,
    /// nobody can remove anything either.
    pub fn hold(&self, key: &Digest) {
        self.tell(&key.to_string());
    }

    /// Tells others that this process works on the run in a folder.
    pub fn work_on(&self, run: &Path) {
        self.tell(&format!("{RUN}{}", path_text::of(run)));
    }

    /// Whether a living process works on the run in a folder.
    pub fn is_worked_on(&self, run: &Path) -> Result<bool, CacheError> {
        let wanted = format!("{RUN}{}", path_text::of(run));
        Ok(self.all_told()?.iter().any(|text| text.lines().any(|line| line == wanted)))
    }

    /// The keys that living processes use.
    pub(super) fn held(&self) -> Result<BTreeSet<Digest>, CacheError> {
        let told = self.all_told()?;
        Ok(told.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect())
    }

    fn tell(&self, line: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.lines.insert(line.to_owned());
        if let Some(user) = told.user.as_ref().filter(|user| user.is_ours()) {
            if is_new {
                user.add(line);
            }
            return;
        }
        let now = clock::nanoseconds(SystemTime::now());
        let name = Digest::of(format!("{} {now} {self:p}", std::process::id()).as_bytes()).short();
        let (keys, lock) = (self.place("users").join(&name), self.lock_file(&format!("user-{name}")));
        told.user = User::begin(keys, lock).ok().flatten();
        if let Some(user) = &told.user {
            told.lines.iter().for_each(|line| user.add(line));
        }
    }

    /// What living processes have written.
    fn all_told(&self) -> Result<Vec<String>, CacheError> {
        let mut told = Vec::new();
        for path in self.listed("users")? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let lock = self.lock_file(&format!("user-{name}"));
            // One that exits meanwhile takes its file along.
            if FileLock::is_held(&lock).map_err(CacheError::of(&lock))? {
                told.push(fs::read_to_string(&path).unwrap_or_default());
            }
        }
        Ok(told)
    }

    /// Removes the files and leases of processes that were killed.
    pub(super) fn forget_the_dead(&self) -> Result<(), CacheError> {
        for path in self.listed("users")? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let lock = self.lock_file(&format!("user-{name}"));
            // No other process ever has this name.
            if !FileLock::is_held(&lock).map_err(CacheError::of(&lock))? {
                let _ = fs::remove_file(&path);
            }
        }
        for lease in self.listed("leases")? {
            // Whoever takes a dead lease removes it when it gives it back.
            FileLock::attempt(&lease).map(drop).map_err(CacheError::of(&lease))?;
        }
        Ok(())
    }

    /// Marks an entry as used now: by the time of its file, which enters nothing else. In a cache of another user, the
    /// artefacts only look older than they are.
    pub(super) fn touch(&self, key: &Digest) {
        let path = self.entry_file(key);
        let _ =
            File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}
