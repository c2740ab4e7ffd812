//! The cache folder: where its files are, how a key is looked up, and how damage is found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::memo::Memo;
use super::{CacheError, Damage, Entry};
use crate::base::Artefact;
use crate::base::lock::FileLock;
use crate::base::{Digest, Interrupt, Manifest, StageId, files};

/// The format of everything below `v1`. History: 1, the first.
const FORMAT: u32 = 1;

/// Tells backup programs that this folder can be recreated (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

/// A cache folder. Opening it and looking things up writes nothing.
pub struct Store {
    root: PathBuf,
    pub(super) memo: Memo,
    /// The peak memory of each artefact that is being made, outermost first.
    pub(super) peaks: Mutex<Vec<Option<u64>>>,
}

/// What [`Store::lookup`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The key is not known.
    Absent,
    /// The artefact is there and undamaged.
    Whole(Entry),
    /// The key is known, but its artefact is damaged.
    Damaged(Damage),
}

/// The manifest that a stage had when it was last looked up in a run.
#[derive(PartialEq, Serialize, Deserialize)]
struct Last {
    pipeline: String,
    stage: StageId,
    manifest: Manifest,
}

impl Store {
    /// Opens the cache at `root`, which need not exist yet.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let root = std::path::absolute(root).map_err(CacheError::of(root))?;
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim() == FORMAT.to_string() => {}
            Ok(found) => {
                let found = found.trim().chars().take(20).collect();
                return Err(CacheError::NewerFormat { root, found, known: FORMAT });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CacheError::of(&version)(error)),
        }
        let memo = Memo::new(root.join(format!("v{FORMAT}/memo")));
        Ok(Self { root, memo, peaks: Mutex::default() })
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks a key up and checks the artefact's bytes; changes nothing.
    pub fn lookup(&self, key: &Digest) -> Result<Lookup, CacheError> {
        let path = self.entry_file(key);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::Absent),
            text => text.map_err(CacheError::of(&path))?,
        };
        let Some(entry) = serde_json::from_slice(&text).ok().filter(|entry: &Entry| entry.is_sound(key))
        else {
            return Ok(Lookup::Damaged(Damage { path, expected: None, found: None }));
        };
        Ok(match self.damage(&entry)? {
            None => Lookup::Whole(entry),
            Some(damage) => Lookup::Damaged(damage),
        })
    }

    /// The artefact of an entry, as stages take it.
    pub fn artefact(&self, entry: &Entry) -> Artefact {
        Artefact { kind: entry.made.kind, path: self.artefact_folder(&entry.digest), digest: entry.digest }
    }

    /// Digest of a file or folder outside the cache, computed only if it is not known yet. Hidden files in a folder are
    /// ignored.
    pub fn digest_of(&self, path: &Path) -> io::Result<Digest> {
        Ok(self.memo.tree(path)?.digest())
    }

    /// Saves the digests computed so far, so that the next command need not compute them again.
    pub fn save_digests(&self) {
        self.memo.save();
    }

    /// The manifest that this stage had in the last run of this pipeline.
    pub fn last_manifest(&self, pipeline: &str, stage: &StageId) -> Option<Manifest> {
        let last: Last = files::read_json(&self.last_file(pipeline, stage)).ok()?;
        Some(last.manifest)
    }

    /// Keeps a stage's manifest for the explanation of the next run. It is only information, so errors are ignored.
    pub fn remember(&self, pipeline: &str, stage: &StageId, manifest: &Manifest) {
        if self.last_manifest(pipeline, stage).as_ref() == Some(manifest) {
            return;
        }
        let last = Last { pipeline: pipeline.to_owned(), stage: stage.clone(), manifest: manifest.clone() };
        if let Ok(bytes) = serde_json::to_vec(&last) {
            let _ = files::replace(&self.last_file(pipeline, stage), &bytes);
        }
    }

    /// The folder of an unfinished artefact.
    pub(super) fn work_folder(&self, key: &Digest) -> PathBuf {
        self.place("work").join(key.to_string())
    }

    pub(super) fn artefact_folder(&self, digest: &Digest) -> PathBuf {
        self.place("artefacts").join(digest.to_string())
    }

    pub(super) fn entry_file(&self, key: &Digest) -> PathBuf {
        self.place("entries").join(format!("{key}.json"))
    }

    pub(super) fn lock(
        &self,
        name: &str,
        interrupt: &Interrupt,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<FileLock, CacheError> {
        let path = self.place("locks").join(name);
        FileLock::acquire(&path, interrupt, waiting).map_err(CacheError::of(&path))
    }

    /// What is wrong with an entry's artefact.
    pub(super) fn damage(&self, entry: &Entry) -> Result<Option<Damage>, CacheError> {
        let folder = self.artefact_folder(&entry.digest);
        if !folder.is_dir() {
            return Ok(Some(Damage { path: folder, expected: Some(entry.digest), found: None }));
        }
        match self.memo.tree(&folder) {
            Ok(found) => Ok(entry.files.first_difference(&found).map(|(path, expected, found)| Damage {
                path: folder.join(path),
                expected,
                found,
            })),
            // A broken link, or a file that can no longer be read.
            Err(_) => Ok(Some(Damage { path: folder, expected: Some(entry.digest), found: None })),
        }
    }

    /// Removes an artefact atomically for readers.
    pub(super) fn remove_artefact(&self, digest: &Digest) -> Result<(), CacheError> {
        let folder = self.artefact_folder(digest);
        let aside = self.place("work").join(format!("removed-{digest}"));
        files::remove_folder(&aside).map_err(CacheError::of(&aside))?;
        match fs::create_dir_all(self.place("work")).and_then(|()| fs::rename(&folder, &aside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(CacheError::of(&folder))?,
        }
        files::remove_folder(&aside).map_err(CacheError::of(&aside))
    }

    /// Writes the version of a new cache.
    pub(super) fn prepare(&self) -> Result<(), CacheError> {
        let version = self.root.join("version");
        if !version.exists() {
            files::write_atomic(&self.root.join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())
                .and_then(|()| files::write_atomic(&version, format!("{FORMAT}\n").as_bytes()))
                .map_err(CacheError::of(&version))?;
        }
        Ok(())
    }

    fn last_file(&self, pipeline: &str, stage: &StageId) -> PathBuf {
        let name = Digest::of(format!("{pipeline}\0{stage}").as_bytes());
        self.place("last").join(format!("{name}.json"))
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join(format!("v{FORMAT}")).join(name)
    }
}
