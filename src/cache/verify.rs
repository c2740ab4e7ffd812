//! Reads every byte of the cache and compares it with what was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::memo::Owner;
use super::store::Stored;
use super::{CacheError, Damage, Entry, Store};
use crate::base::{Digest, FileError, Interrupt};

/// What [`Store::verify`] found.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// Entries that were read.
    pub entries: usize,
    /// Artefacts that were read.
    pub artefacts: usize,
    /// Bytes of those artefacts as they were committed.
    pub bytes: u64,
    /// What differs from what was committed.
    pub damaged: Vec<Damage>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// A file or folder that could not be read, and why.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// The file or folder.
    pub path: PathBuf,
    /// The system's message.
    pub reason: String,
}

impl Store {
    /// Checks every entry and every artefact. Changes nothing but the memo: the next run makes again what is damaged.
    pub fn verify(&self, interrupt: &Interrupt) -> Result<Verification, CacheError> {
        let mut found = Verification::default();
        let artefacts = self.check_entries(&mut found)?;
        for entry in artefacts.values() {
            interrupt.check()?;
            let damage = self.damage(entry);
            found.bytes += entry.files.bytes();
            found.artefacts += 1;
            // Another process may have made it again meanwhile.
            if matches!(&damage, Ok(None)) || !self.is_entered(entry)? {
                continue;
            }
            found.add(damage)?;
        }
        self.check_others(&artefacts, &mut found, interrupt)?;
        self.save_digests();
        Ok(found)
    }

    /// Checks artefacts whose keys have other artefacts now. Folders of runs may still link to them.
    fn check_others(
        &self,
        known: &BTreeMap<Digest, Entry>,
        found: &mut Verification,
        interrupt: &Interrupt,
    ) -> Result<(), CacheError> {
        for path in self.listed("artefacts")? {
            interrupt.check()?;
            let digest = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(digest) = digest.filter(|digest| self.artefact_folder(digest) == path) else {
                found.damaged.push(Damage { path, expected: None, found: None });
                continue;
            };
            if known.contains_key(&digest) {
                continue;
            }
            match self.memo.tree(&path, Owner::Cache) {
                Ok(tree) => {
                    (found.artefacts, found.bytes) = (found.artefacts + 1, found.bytes + tree.bytes());
                    if tree.digest() != digest {
                        let (expected, read) = (Some(digest), Some(tree.digest()));
                        found.damaged.push(Damage { path, expected, found: read });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => found.add(Err(CacheError::of(&path)(error)))?,
            }
        }
        Ok(())
    }

    /// Checks all entries and gives one for each artefact.
    fn check_entries(&self, found: &mut Verification) -> Result<BTreeMap<Digest, Entry>, CacheError> {
        let mut artefacts = BTreeMap::new();
        for path in self.listed("entries")? {
            let key = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            let Some(key) = key.filter(|key| self.entry_file(key) == path) else {
                found.damaged.push(Damage { path, expected: None, found: None });
                continue;
            };
            found.entries += 1;
            match self.read_entry(&key) {
                Ok(Stored::Sound(entry)) => drop(artefacts.insert(entry.digest, *entry)),
                Ok(Stored::Absent) => found.entries -= 1,
                Ok(Stored::Broken) => found.damaged.push(Damage { path, expected: None, found: None }),
                Err(error) => found.add(Err(error))?,
            }
        }
        Ok(artefacts)
    }

    /// Everything in a folder of the cache, in order, but files that are being written.
    pub(super) fn listed(&self, name: &str) -> Result<BTreeSet<PathBuf>, CacheError> {
        let folder = self.place(name);
        let listed = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            listed => listed.and_then(|entries| entries.collect::<io::Result<Vec<_>>>()),
        };
        let listed = listed.map_err(CacheError::of(&folder))?.into_iter();
        let visible = listed.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        Ok(visible.map(|entry| entry.path()).collect())
    }

    /// Whether the entry is still that of its key.
    fn is_entered(&self, entry: &Entry) -> Result<bool, CacheError> {
        Ok(matches!(self.read_entry(&entry.key)?, Stored::Sound(now) if *now == *entry))
    }
}

impl Verification {
    /// Whether everything is as it was committed.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.unreadable.is_empty()
    }

    /// Only an interruption ends the verification.
    fn add(&mut self, outcome: Result<Option<Damage>, CacheError>) -> Result<(), CacheError> {
        match outcome {
            Ok(damage) => self.damaged.extend(damage),
            Err(CacheError::File(FileError { path, source })) => {
                self.unreadable.push(Unreadable { path, reason: source.to_string() });
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }
}
