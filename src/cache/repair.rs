//! Removes what a verification found damaged, so that it is made again when it is needed.

use super::recorded::Place;
use super::{CacheError, Damage, Store, Verification};
use crate::base::{Digest, Interrupt, copies};

impl Store {
    /// Removes the damaged entries and artefacts of a verification. An artefact that was made again meanwhile stays.
    pub fn repair(&self, found: &Verification, interrupt: &Interrupt) -> Result<(), CacheError> {
        for Damage { path, .. } in &found.damaged {
            interrupt.check()?;
            match Place::of(path) {
                Some(place) => {
                    let name = format!("artefact-{}", place.digest);
                    let _lock = self.lock(&name, interrupt, &mut |_| {})?;
                    if self.is_damaged(&place.digest)? {
                        self.remove_artefact(&place.digest)?;
                        self.remove_entries_of(&place.digest)?;
                    }
                }
                // An entry that is no entry, or something that does not belong there.
                None => copies::remove(path).map_err(CacheError::of(path))?,
            }
        }
        Ok(())
    }

    fn is_damaged(&self, digest: &Digest) -> Result<bool, CacheError> {
        // An entry also knows the hidden files.
        Ok(match self.entry_of(digest)? {
            Some(entry) => self.damage(&entry)?.is_some(),
            None => self.check(digest)?.is_some(),
        })
    }

    fn remove_entries_of(&self, digest: &Digest) -> Result<(), CacheError> {
        while let Some(entry) = self.entry_of(digest)? {
            let path = self.entry_file(&entry.key);
            copies::remove(&path).map_err(CacheError::of(&path))?;
        }
        Ok(())
    }
}
