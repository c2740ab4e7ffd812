//! Digests of files that were hashed before: a file with the same size, time and inode is assumed to hold
//! the same bytes.
//!
//! File times have a limited resolution, so an edit right after the hashing may not change them. As git does for its
//! index, a digest is trusted only if the file was already old when it was hashed ("racily clean"). Loss of the memo
//! costs time, never correctness, so it is written without a sync and its errors are ignored.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Tree;
use crate::base::clock::nanoseconds;
use crate::base::{Digest, Unwatched, Watch, files};

/// The coarsest time resolution of a file system in use: two seconds, on FAT.
pub(super) const TICK_NANOSECONDS: i64 = 2_000_000_000;

/// The memo of one cache folder. New digests stay in memory until [`Memo::save`], so that a command that fails before
/// it runs anything writes nothing.
pub(super) struct Memo {
    folder: PathBuf,
    pub(super) watch: Arc<dyn Watch>,
    learnt: Mutex<BTreeMap<PathBuf, Record>>,
}

/// The known digests of one file or folder, by path inside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(with = "crate::base::path_text")]
    path: PathBuf,
    files: BTreeMap<String, Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    modified: i64,
    inode: u64,
    hashed: i64,
    digest: Digest,
}

impl Known {
    fn now(digest: Digest, metadata: &Metadata, hashed: SystemTime) -> Self {
        Self {
            bytes: metadata.len(),
            modified: modified(metadata),
            inode: metadata.ino(),
            hashed: nanoseconds(hashed),
            digest,
        }
    }

    fn still_holds(&self, metadata: &Metadata) -> bool {
        (self.bytes, self.modified, self.inode) == (metadata.len(), modified(metadata), metadata.ino())
            && self.modified.saturating_add(TICK_NANOSECONDS) <= self.hashed
    }
}

impl Memo {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, watch: Arc::new(Unwatched), learnt: Mutex::default() }
    }

    /// The files at `root` with their digests, hashing only unknown files.
    pub(super) fn tree(&self, root: &Path) -> io::Result<Tree> {
        let root = fs::canonicalize(root)?;
        let old = self.recall(&root);
        let mut new = Record { path: root.clone(), files: BTreeMap::new() };
        let tree = Tree::read(&root, &mut |name, place, metadata| {
            let known = match old.files.get(name) {
                Some(known) if known.still_holds(metadata) => *known,
                _ => {
                    let before = SystemTime::now();
                    Known::now(Digest::of_file_watched(place, &*self.watch)?, metadata, before)
                }
            };
            new.files.insert(name.to_owned(), known);
            Ok(known.digest)
        })?;
        if new != old {
            self.learn(new);
        }
        Ok(tree)
    }

    /// Adds digests that were just computed; `root` is the folder of the files.
    pub(super) fn know(&self, root: &Path, tree: &Tree) -> io::Result<()> {
        let root = fs::canonicalize(root)?;
        let mut record = Record { path: root.clone(), files: BTreeMap::new() };
        for file in tree.files() {
            let metadata = fs::metadata(root.join(&file.path))?;
            record.files.insert(file.path.clone(), Known::now(file.digest, &metadata, SystemTime::now()));
        }
        self.learn(record);
        Ok(())
    }

    /// Writes the new digests.
    pub(super) fn save(&self) {
        let learnt = std::mem::take(&mut *self.learnt.lock().unwrap_or_else(PoisonError::into_inner));
        for record in learnt.into_values() {
            if let Ok(bytes) = serde_json::to_vec(&record)
                && files::replace(&self.file(&record.path), &bytes).is_err()
            {
                return;
            }
        }
    }

    fn recall(&self, root: &Path) -> Record {
        if let Some(record) = self.learnt.lock().unwrap_or_else(PoisonError::into_inner).get(root) {
            return record.clone();
        }
        let read: io::Result<Record> = files::read_json(&self.file(root));
        read.ok().filter(|record| record.path == root).unwrap_or_default()
    }

    fn learn(&self, record: Record) {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).insert(record.path.clone(), record);
    }

    fn file(&self, root: &Path) -> PathBuf {
        self.folder.join(format!("{}.json", Digest::of(root.as_os_str().as_encoded_bytes())))
    }
}

fn modified(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    /// Sets a file's time to `seconds` ago.
    fn age(path: &Path, seconds: u64) -> io::Result<()> {
        File::options().write(true).open(path)?.set_modified(SystemTime::now() - Duration::from_secs(seconds))
    }

    #[test]
    fn an_old_file_is_hashed_once() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        fs::write(&file, "one")?;
        age(&file, 60)?;
        let time = fs::metadata(&file)?.modified()?;
        let memo = Memo::new(folder.path().join("memo"));
        let first = memo.tree(&file)?;
        memo.save();

        // Other bytes of equal size and time: only a memo can still give the old digest.
        fs::write(&file, "two")?;
        File::options().write(true).open(&file)?.set_modified(time)?;
        assert_eq!(Memo::new(folder.path().join("memo")).tree(&file)?, first);

        fs::write(&file, "two")?;
        assert_eq!(memo.tree(&file)?.digest(), Digest::of(b"two"));
        Ok(())
    }

    #[test]
    fn a_file_that_was_just_written_is_not_trusted() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        let memo = Memo::new(folder.path().join("memo"));
        fs::write(&file, "one")?;
        let time = fs::metadata(&file)?.modified()?;
        memo.tree(&file)?;
        fs::write(&file, "two")?;
        File::options().write(true).open(&file)?.set_modified(time)?;
        assert_eq!(memo.tree(&file)?.digest(), Digest::of(b"two"));
        Ok(())
    }

    #[test]
    fn a_memo_that_cannot_be_read_or_written_is_only_slow() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        fs::write(&file, "one")?;
        let memo = Memo::new(file.join("memo"));
        assert_eq!(memo.tree(&file)?.digest(), Digest::of(b"one"));
        memo.save();
        Ok(())
    }
}
