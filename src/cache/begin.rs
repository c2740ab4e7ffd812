//! The right to make an artefact: the lock of its key. The key is looked up again once the lock is held.

use super::store::Stored;
use super::{CacheError, Entry, Lookup, PendingArtefact, Store};
use crate::base::{Digest, Interrupt, copies};

/// What [`Store::begin`] found once it held the key's lock.
pub(super) enum Begun<'a> {
    /// Another process has finished it meanwhile.
    Cached(Entry),
    /// This process must make it.
    Pending(PendingArtefact<'a>),
}

impl Store {
    /// Takes the key's lock, and looks it up again: the process that held the lock may have finished it.
    /// `waiting` is called with its name. With `force`, a finished artefact and a checkpoint are ignored.
    pub(super) fn begin(
        &self,
        key: &Digest,
        force: bool,
        interrupt: &Interrupt,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<Begun<'_>, CacheError> {
        self.prepare()?;
        let lock = self.lock(&format!("key-{key}"), interrupt, waiting)?;
        match self.lookup(key)? {
            Lookup::Whole(entry) if !force => return Ok(Begun::Cached(entry)),
            Lookup::Damaged(_) => self.discard(key, interrupt)?,
            _ => {}
        }
        Ok(Begun::Pending(PendingArtefact::open(self, *key, lock, force)?))
    }

    /// Removes a damaged entry, whatever stands in its place, and its artefact, unless another process has replaced it
    /// meanwhile.
    fn discard(&self, key: &Digest, interrupt: &Interrupt) -> Result<(), CacheError> {
        let path = self.entry_file(key);
        let entry = self.read_entry(key)?;
        copies::remove(&path).map_err(CacheError::of(&path))?;
        if let Stored::Sound(entry) = entry {
            let _lock = self.lock(&format!("artefact-{}", entry.digest), interrupt, &mut |_| {})?;
            if self.damage(&entry)?.is_some() {
                self.remove_artefact(&entry.digest)?;
            }
        }
        Ok(())
    }
}
