//! The cache folder: where its files are, how a key is looked up, and how damage is found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use super::memo::{Memo, Owner, Recheck};
use super::remote::Shared;
use super::user::Told;
use super::{CacheError, Damage, Entry, Tree};
use crate::base::Artefact;
use crate::base::lock::FileLock;
use crate::base::{Digest, Interrupt, Watch, copies, files, sealed, shown};

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
    /// Done when this process makes its first artefact.
    begun: Once,
    /// What this process tells about its use of the cache.
    pub(super) told: Mutex<Told>,
    /// Where artefacts of other machines come from, and where those of this one go.
    pub(super) remote: Option<Shared>,
}

/// What stands in the place of an entry.
pub(super) enum Stored {
    Absent,
    /// Something else, or an entry that was changed or damaged.
    Broken,
    Sound(Box<Entry>),
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

impl Store {
    /// Opens the cache at `root`, which need not exist yet.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let root = std::path::absolute(root).map_err(CacheError::of(root))?;
        let version = root.join("version");
        match fs::read_to_string(&version) {
            // Without a number it is what a crash of the machine left; the folder below says what the cache is.
            Ok(found) if found.trim().is_empty() || found.trim() == FORMAT.to_string() => {}
            Ok(found) if found.trim().parse().is_ok_and(|format: u64| format > FORMAT.into()) => {
                let found = shown::brief(found.trim()).into_owned();
                return Err(CacheError::NewerFormat { root, found, known: FORMAT });
            }
            Ok(found) => {
                let found = shown::brief(found.trim()).into_owned();
                return Err(CacheError::NoVersion { path: version, found, known: FORMAT });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let found = "bytes that are no text".to_owned();
                return Err(CacheError::NoVersion { path: version, found, known: FORMAT });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CacheError::of(&version)(error)),
        }
        let memo = Memo::new(root.join(format!("v{FORMAT}/memo")));
        let (peaks, begun, told) = (Mutex::default(), Once::new(), Mutex::default());
        Ok(Self { root, memo, peaks, begun, told, remote: None })
    }

    /// The same cache, with another choice of what is read again.
    pub fn rechecking(self, recheck: Recheck) -> Self {
        Self { memo: self.memo.rechecking(recheck), ..self }
    }

    /// The same cache, with somebody who hears how far files are hashed and may stop it.
    pub fn watched(mut self, watch: Arc<dyn Watch>) -> Self {
        self.memo.watch = watch;
        self
    }

    /// The same cache, which shares its artefacts with those of other machines.
    pub fn sharing(self, remote: Option<Shared>) -> Self {
        Self { remote, ..self }
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks a key up and checks the artefact's bytes; changes nothing.
    pub fn lookup(&self, key: &Digest) -> Result<Lookup, CacheError> {
        let entry = match self.read_entry(key)? {
            Stored::Absent => return Ok(Lookup::Absent),
            Stored::Broken => {
                let path = self.entry_file(key);
                return Ok(Lookup::Damaged(Damage { path, expected: None, found: None }));
            }
            Stored::Sound(entry) => *entry,
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

    /// A file, or the files of a folder outside the cache, with digests that are computed only if they are not known yet.
    /// Hidden files in a folder are ignored.
    pub fn tree_of(&self, path: &Path) -> io::Result<Tree> {
        self.memo.tree(path, Owner::User)
    }

    /// The files of an artefact as they are now.
    pub fn files_of(&self, artefact: &Artefact) -> io::Result<Tree> {
        self.memo.tree(&artefact.path, Owner::Cache)
    }

    /// The same for the files of these names in a folder outside the cache.
    pub fn named_files_of(&self, folder: &Path, names: &[String]) -> io::Result<Tree> {
        self.memo.files(folder, names)
    }

    /// Saves the digests computed so far, so that the next command need not compute them again.
    pub fn save_digests(&self) {
        self.memo.save();
    }

    /// The folder of an unfinished artefact.
    pub(super) fn work_folder(&self, key: &Digest) -> PathBuf {
        self.place("work").join(key.to_string())
    }

    pub(super) fn artefact_folder(&self, digest: &Digest) -> PathBuf {
        self.place("artefacts").join(digest.to_string())
    }

    pub(super) fn entries_folder(&self) -> PathBuf {
        self.place("entries")
    }

    pub(super) fn entry_file(&self, key: &Digest) -> PathBuf {
        self.entries_folder().join(format!("{key}.json"))
    }

    pub(super) fn lock(
        &self,
        name: &str,
        interrupt: &Interrupt,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<FileLock, CacheError> {
        let path = self.lock_file(name);
        FileLock::acquire(&path, interrupt, waiting).map_err(CacheError::of(&path))
    }

    /// What stands in the place of a key's entry.
    pub(super) fn read_entry(&self, key: &Digest) -> Result<Stored, CacheError> {
        let path = self.entry_file(key);
        let read = fs::symlink_metadata(&path).and_then(|metadata| match metadata.is_file() {
            true => sealed::read(&path),
            false => Err(io::ErrorKind::InvalidData.into()),
        });
        match read {
            Ok(entry) => Ok(Some(entry).filter(|entry: &Entry| entry.is_sound(key)))
                .map(|entry| entry.map_or(Stored::Broken, |entry| Stored::Sound(Box::new(entry)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stored::Absent),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Stored::Broken),
            Err(error) => Err(CacheError::of(&path)(error)),
        }
    }

    /// What is wrong with an entry's artefact. That it cannot be read, for any reason but that it is not there, is an
    /// error and no damage: it may be whole.
    pub(super) fn damage(&self, entry: &Entry) -> Result<Option<Damage>, CacheError> {
        let folder = self.artefact_folder(&entry.digest);
        let found = match fs::metadata(&folder) {
            Ok(metadata) if !metadata.is_dir() => Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => self.memo.tree(&folder, Owner::Cache),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => match entry.files.first_difference(&found) {
                Some((path, expected, found)) => {
                    Ok(Some(Damage { path: folder.join(path), expected, found }))
                }
                None => self.hidden_damage(entry),
            },
            Err(error) if is_no_data(&error) => {
                Ok(Some(Damage { path: folder, expected: Some(entry.digest), found: None }))
            }
            Err(error) => Err(CacheError::of(&folder)(error)),
        }
    }

    /// What is wrong with the hidden files.
    fn hidden_damage(&self, entry: &Entry) -> Result<Option<Damage>, CacheError> {
        for name in &entry.hidden {
            let path = self.artefact_folder(&entry.digest).join(name);
            match sealed::read::<serde_json::Value>(&path) {
                Ok(_) => {}
                Err(error) if is_no_data(&error) => {
                    return Ok(Some(Damage { path, expected: None, found: None }));
                }
                Err(error) => return Err(CacheError::of(&path)(error)),
            }
        }
        Ok(None)
    }

    /// Removes an artefact atomically for readers.
    pub(super) fn remove_artefact(&self, digest: &Digest) -> Result<(), CacheError> {
        let folder = self.artefact_folder(digest);
        let aside = self.place("work").join(format!("removed-{digest}"));
        copies::remove(&aside).map_err(CacheError::of(&aside))?;
        match fs::create_dir_all(self.place("work")).and_then(|()| fs::rename(&folder, &aside)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(CacheError::of(&folder))?,
        }
        copies::remove(&aside).map_err(CacheError::of(&aside))
    }

    /// Writes the version of a new cache, and removes what killed processes left in an old one.
    pub(super) fn prepare(&self) -> Result<(), CacheError> {
        self.begun.call_once(|| self.remove_leftovers());
        let version = self.root.join("version");
        if !fs::read(&version).is_ok_and(|text| !text.trim_ascii().is_empty()) {
            files::write_atomic(&self.root.join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())
                .and_then(|()| files::write_atomic(&version, format!("{FORMAT}\n").as_bytes()))
                .map_err(CacheError::of(&version))?;
        }
        Ok(())
    }

    /// The file of a lock.
    pub(super) fn lock_file(&self, name: &str) -> PathBuf {
        self.place("leases").join(name)
    }

    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.root.join(format!("v{FORMAT}")).join(name)
    }
}

/// Whether the error says that there is no file, or something else than the data that belong there.
pub(super) fn is_no_data(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}
