//! Carries out a collection. Between its making and its end, others use and make artefacts: what they began to use stays.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::super::store::Stored;
use super::super::{CacheError, Scratch, Store};
use super::{Collected, Collection, Thing};
use crate::base::lock::FileLock;
use crate::base::{Digest, Interrupt, copies, files, silent_locks};

impl Store {
    /// Removes what a collection names.
    pub fn collect(&self, collection: &Collection, interrupt: &Interrupt) -> Result<Collected, CacheError> {
        let mut collected = Collected::default();
        for candidate in &collection.candidates {
            interrupt.check()?;
            let is_gone = match &candidate.thing {
                Thing::Artefact { digest, keys } => {
                    let mut are_gone = true;
                    for key in keys {
                        are_gone &= self.remove_entry(key, collection.known.get(key).map(|known| known.1))?;
                    }
                    are_gone && self.remove_unentered(digest, collection)?
                }
                Thing::Checkpoint { key } => self.remove_work(key)?,
            };
            if is_gone { &mut collected.removed } else { &mut collected.spared }.push(candidate.clone());
        }
        self.remove_leftovers();
        self.forget_the_dead()?;
        Scratch::remove_abandoned(self.root());
        self.memo.forget_artefacts(&self.place("artefacts"));
        Ok(collected)
    }

    /// Removes the leases of processes on other machines that show no heartbeat for 30 seconds, so that they count as dead from
    /// now on. `waiting` is called with the name of one if there may be such a process.
    pub fn forget_the_silent(
        &self,
        interrupt: &Interrupt,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<(), CacheError> {
        let mut leases: Vec<PathBuf> = self.listed("leases")?.into_iter().collect();
        leases.extend(Scratch::locks(self.root()));
        silent_locks::remove_silent(&leases, interrupt, waiting)
            .map_err(CacheError::of(&self.place("leases")))
    }

    /// Removes an entry, unless a process makes or uses its artefact, or has used it since.
    fn remove_entry(&self, key: &Digest, used: Option<SystemTime>) -> Result<bool, CacheError> {
        let Some(_lock) = self.key_lock(key)? else { return Ok(false) };
        let path = self.entry_file(key);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            text => text.map_err(CacheError::of(&path))?,
        };
        let now = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if Some(now.map_err(CacheError::of(&path))?) != used {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(CacheError::of(&path))?;
        // A process writes down a key before it looks for the entry.
        if self.held()?.contains(key) {
            files::write_atomic(&path, &text).map_err(CacheError::of(&path))?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Removes an artefact that no entry has. Who enters it holds its lock.
    fn remove_unentered(&self, digest: &Digest, collection: &Collection) -> Result<bool, CacheError> {
        let _lock = self.lock(&format!("artefact-{digest}"), &Interrupt::default(), &mut |_| {})?;
        for path in self.listed("entries")? {
            let Some(key) = path.file_stem().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            let used = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            let is_its = match collection.known.get(&key) {
                Some((known, then)) if used == Some(*then) => known == digest,
                _ => matches!(self.read_entry(&key)?, Stored::Sound(entry) if entry.digest == *digest),
            };
            if is_its {
                return Ok(false);
            }
        }
        self.remove_artefact(digest)?;
        Ok(true)
    }

    fn remove_work(&self, key: &Digest) -> Result<bool, CacheError> {
        let Some(_lock) = self.key_lock(key)? else { return Ok(false) };
        let folder = self.work_folder(key);
        copies::remove(&folder).map(|()| true).map_err(CacheError::of(&folder))
    }

    /// The lock of a key, if nobody is making its artefact.
    fn key_lock(&self, key: &Digest) -> Result<Option<FileLock>, CacheError> {
        let path = self.lock_file(&format!("key-{key}"));
        FileLock::attempt(&path).map_err(CacheError::of(&path))
    }
}
