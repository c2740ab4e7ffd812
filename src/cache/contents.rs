//! Everything in the cache with its size and its last use, for those who look after it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::pending::noted_parts;
use super::store::Stored;
use super::{CacheError, Entry, Store};
use crate::base::Digest;

/// What a cache holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// The sound entries, in the order of their keys.
    pub entries: Vec<Kept>,
    /// Artefacts that no sound entry has.
    pub loose: Vec<Loose>,
    /// Unfinished work.
    pub work: Vec<Work>,
    /// Files that are neither: digests of files, explanations, locks.
    pub others: u64,
    /// What all of it takes on the disk. Files that artefacts share count once.
    pub bytes: u64,
}

/// An entry and its artefact.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The entry.
    pub entry: Entry,
    /// When it was last used by a run.
    pub used: SystemTime,
}

/// An artefact without an entry: its key has other bytes now.
#[derive(Clone, Debug)]
pub struct Loose {
    /// Its digest.
    pub digest: Digest,
    /// The size of its files.
    pub bytes: u64,
    /// When it was put in place.
    pub used: SystemTime,
}

/// Unfinished work on a key: checkpoints.
#[derive(Clone, Debug)]
pub struct Work {
    /// The key.
    pub key: Digest,
    /// The size of its files.
    pub bytes: u64,
    /// When it was last written to.
    pub used: SystemTime,
    /// The keys of the intermediate artefacts that it has so far.
    pub parts: Vec<Digest>,
}

impl Kept {
    /// How long it was not used.
    pub fn age(&self) -> Duration {
        age(self.used)
    }
}

impl Work {
    /// How long it was not written to.
    pub fn age(&self) -> Duration {
        age(self.used)
    }
}

/// How long ago a time was; none in the future.
pub(super) fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

impl Store {
    /// Lists the cache. What disappears meanwhile is left out.
    pub fn contents(&self) -> Result<Contents, CacheError> {
        let mut contents = Contents::default();
        for path in self.listed("entries")? {
            let Some(key) = named(path.file_stem()) else { continue };
            if let (Stored::Sound(entry), Ok(metadata)) = (self.read_entry(&key)?, fs::metadata(&path)) {
                contents.entries.push(Kept { entry: *entry, used: modified(&metadata) });
            }
        }
        let mut seen = HashSet::new();
        let known: BTreeSet<Digest> = contents.entries.iter().map(|kept| kept.entry.digest).collect();
        for path in self.listed("artefacts")? {
            let size = Size::of(&path, &mut seen)?;
            contents.bytes += size.new;
            if let Some(digest) = named(path.file_name()).filter(|digest| !known.contains(digest)) {
                // The folder's own time is that of its last change: when it was filled.
                let used = fs::metadata(&path).as_ref().map_or(SystemTime::now(), modified);
                contents.loose.push(Loose { digest, bytes: size.all, used });
            }
        }
        for path in self.listed("work")? {
            let size = Size::of(&path, &mut seen)?;
            contents.bytes += size.new;
            if let Some(key) = named(path.file_name()) {
                let used = size.youngest.unwrap_or_else(SystemTime::now);
                contents.work.push(Work { key, bytes: size.all, used, parts: noted_parts(&path) });
            }
        }
        for place in ["entries", "memo", "last", "roots", "users", "leases", "locks"] {
            contents.others += Size::of(&self.place(place), &mut seen)?.new;
        }
        contents.bytes += contents.others;
        Ok(contents)
    }

    /// The links of every file of an artefact, by device and inode, with the file's size.
    pub(super) fn links(&self, digest: &Digest) -> Result<BTreeMap<(u64, u64), Links>, CacheError> {
        let mut links = BTreeMap::new();
        walk(&self.artefact_folder(digest), &mut |metadata| {
            let file = links.entry((metadata.dev(), metadata.ino())).or_insert(Links {
                bytes: metadata.len(),
                all: metadata.nlink(),
                here: 0,
            });
            file.here += 1;
        })
        .map_err(CacheError::of(&self.artefact_folder(digest)))?;
        Ok(links)
    }
}

/// How often a file is linked.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub(super) bytes: u64,
    /// From everywhere.
    pub(super) all: u64,
    /// From one artefact.
    pub(super) here: u64,
}

/// What files take.
#[derive(Default)]
struct Size {
    all: u64,
    /// Without files that were seen before.
    new: u64,
    youngest: Option<SystemTime>,
}

impl Size {
    fn of(place: &Path, seen: &mut HashSet<(u64, u64)>) -> Result<Self, CacheError> {
        let mut size = Self::default();
        walk(place, &mut |metadata| {
            size.all += metadata.len();
            if seen.insert((metadata.dev(), metadata.ino())) {
                size.new += metadata.len();
            }
            size.youngest = size.youngest.max(Some(modified(metadata)));
        })
        .map_err(CacheError::of(place))?;
        Ok(size)
    }
}

/// Calls `file` for each file below a place. Links are not followed; what disappears meanwhile is left out.
fn walk(place: &Path, file: &mut dyn FnMut(&Metadata)) -> io::Result<()> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let metadata = match fs::symlink_metadata(place) {
        Err(error) if absent(&error) => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.is_dir() {
        file(&metadata);
        return Ok(());
    }
    let entries = match fs::read_dir(place) {
        Err(error) if absent(&error) => return Ok(()),
        entries => entries?,
    };
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.iter().try_for_each(|path| walk(path, file))
}

fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or_else(|_| SystemTime::now())
}

fn named(name: Option<&std::ffi::OsStr>) -> Option<Digest> {
    name.and_then(|name| name.to_str()?.parse().ok())
}
