//! Digests of files that were hashed before: a file with the same size, times and inode is assumed to hold the same
//! bytes, unless the setting `recheck: all` says otherwise.
//!
//! An edit that restores size and time of modification still changes the time of change, which no program can set. File
//! times have a limited resolution, so an edit right after the hashing may not change them. As git does for its index, a
//! digest is trusted only if the file was already old when it was hashed ("racily clean"). Loss of the memo costs time,
//! never correctness, so it is written without a sync, its files are sealed, and its errors are ignored.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tree;
use super::tree::Hidden;
use crate::base::clock::nanoseconds;
use crate::base::{Digest, Unwatched, Watch, copies, files, sealed};

/// The coarsest time resolution of a file system in use: two seconds, on FAT.
pub(super) const TICK_NANOSECONDS: i64 = 2_000_000_000;

/// Which files are read again to check their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recheck {
    /// Those whose size, times or inode changed since they were last read.
    #[default]
    Changed,
    /// All: this also finds bytes that changed by themselves, as on a failing disk.
    All,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Anybody may write to it at any time.
    User,
    /// It is read-only, and dated back when it was committed. Its time of change is young then, and again whenever an
    /// artefact that shares it is made or removed.
    Cache,
}

/// The memo of one cache folder. New digests stay in memory until [`Memo::save`], so that a command that fails before
/// it runs anything writes nothing.
pub(super) struct Memo {
    folder: PathBuf,
    recheck: Recheck,
    pub(super) watch: Arc<dyn Watch>,
    learnt: Mutex<BTreeMap<PathBuf, Learnt>>,
    /// By device and inode, because artefacts share files.
    inodes: Mutex<HashMap<(u64, u64), Known>>,
}

/// A record of this process.
struct Learnt {
    record: Record,
    saved: bool,
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
    changed: i64,
    inode: u64,
    hashed: i64,
    digest: Digest,
}

impl Known {
    fn now(digest: Digest, metadata: &Metadata, hashed: SystemTime) -> Self {
        Self {
            bytes: metadata.len(),
            modified: modified(metadata),
            changed: changed(metadata),
            inode: metadata.ino(),
            hashed: nanoseconds(hashed),
            digest,
        }
    }

    fn still_holds(&self, metadata: &Metadata, owner: Owner) -> bool {
        let youngest = match owner {
            Owner::User => self.modified.max(self.changed),
            Owner::Cache => self.modified,
        };
        (self.bytes, self.inode) == (metadata.len(), metadata.ino())
            && (self.modified, self.changed) == (modified(metadata), changed(metadata))
            && youngest.saturating_add(TICK_NANOSECONDS) <= self.hashed
    }
}

impl Memo {
    pub(super) fn new(folder: PathBuf) -> Self {
        let (learnt, inodes) = (Mutex::default(), Mutex::default());
        Self { folder, recheck: Recheck::default(), watch: Arc::new(Unwatched), learnt, inodes }
    }

    pub(super) fn rechecking(self, recheck: Recheck) -> Self {
        Self { recheck, ..self }
    }

    /// The files at `root` with their digests, hashing only unknown files.
    pub(super) fn tree(&self, root: &Path, owner: Owner) -> io::Result<Tree> {
        let root = fs::canonicalize(root)?;
        let old = self.recall(&root);
        let mut new = Record { path: root.clone(), files: BTreeMap::new() };
        let tree = Tree::read(&root, Hidden::Left, &mut |name, place, metadata| {
            self.known(&old, (name, place, metadata), owner, &mut new)
        })?;
        if new != old {
            self.learn(new);
        }
        Ok(tree)
    }

    /// The files of these names in the user's folder `root`, hashing only unknown files.
    pub(super) fn files(&self, root: &Path, names: &[String]) -> io::Result<Tree> {
        let root = fs::canonicalize(root)?;
        let old = self.recall(&root);
        // Other names were known to another reader of the folder.
        let mut new = Record { path: root.clone(), ..old.clone() };
        let tree = Tree::of(&root, names, &mut |name, place, metadata| {
            self.known(&old, (name, place, metadata), Owner::User, &mut new)
        })?;
        if new != old {
            self.learn(new);
        }
        Ok(tree)
    }

    /// The digest of a file, from `old` if it still holds; put into `new`.
    fn known(
        &self,
        old: &Record,
        (name, place, metadata): (&str, &Path, &Metadata),
        owner: Owner,
        new: &mut Record,
    ) -> io::Result<Digest> {
        let known = match old.files.get(name) {
            Some(known) if known.still_holds(metadata, owner) => *known,
            _ => self.hash(place, metadata, owner)?,
        };
        new.files.insert(name.to_owned(), known);
        Ok(known.digest)
    }

    /// The digest of a file that is about to become part of an artefact.
    pub(super) fn digest(&self, file: &Path) -> io::Result<Digest> {
        Ok(self.hash(file, &fs::metadata(file)?, Owner::Cache)?.digest)
    }

    /// Adds digests that were just computed; `root` is the folder of an artefact.
    pub(super) fn know(&self, root: &Path, tree: &Tree) -> io::Result<()> {
        let root = fs::canonicalize(root)?;
        let mut record = Record { path: root.clone(), files: BTreeMap::new() };
        for file in tree.files() {
            let metadata = fs::metadata(root.join(&file.path))?;
            let known = Known::now(file.digest, &metadata, SystemTime::now());
            self.inodes().insert((metadata.dev(), metadata.ino()), known);
            record.files.insert(file.path.clone(), known);
        }
        self.learn(record);
        Ok(())
    }

    /// Writes the new digests.
    pub(super) fn save(&self) {
        for (path, learnt) in self.learnt().iter_mut().filter(|(_, learnt)| !learnt.saved) {
            if write_hint(&self.file(path), &learnt.record).is_err() {
                return;
            }
            learnt.saved = true;
        }
    }

    /// Removes the records of artefacts that are gone; `artefacts` is their folder.
    pub(super) fn forget_artefacts(&self, artefacts: &Path) {
        let Ok(artefacts) = fs::canonicalize(artefacts) else { return };
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let record: io::Result<Record> = sealed::read(&entry.path());
            if record.is_ok_and(|record| record.path.starts_with(&artefacts) && !record.path.exists()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Reads a file, unless this process has read it under another name.
    fn hash(&self, place: &Path, metadata: &Metadata, owner: Owner) -> io::Result<Known> {
        let id = (metadata.dev(), metadata.ino());
        let known = self.inodes().get(&id).copied();
        if let Some(known) = known.filter(|known| known.still_holds(metadata, owner)) {
            return Ok(known);
        }
        let before = SystemTime::now();
        let known = Known::now(Digest::of_file_watched(place, &*self.watch)?, metadata, before);
        self.inodes().insert(id, known);
        Ok(known)
    }

    fn recall(&self, root: &Path) -> Record {
        if let Some(learnt) = self.learnt().get(root) {
            return learnt.record.clone();
        }
        if self.recheck == Recheck::All {
            return Record::default();
        }
        let read: io::Result<Record> = sealed::read(&self.file(root));
        read.ok().filter(|record| record.path == root).unwrap_or_default()
    }

    fn learn(&self, record: Record) {
        self.learnt().insert(record.path.clone(), Learnt { record, saved: false });
    }

    fn learnt(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Learnt>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inodes(&self) -> MutexGuard<'_, HashMap<(u64, u64), Known>> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, root: &Path) -> PathBuf {
        self.folder.join(format!("{}.json", Digest::of(root.as_os_str().as_encoded_bytes())))
    }
}

/// Writes a sealed file of the cache that can be lost, whatever stands in its place.
pub(super) fn write_hint(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let bytes = sealed::to_vec(value)?;
    files::replace(path, &bytes).or_else(|_| {
        copies::remove(path)?;
        files::replace(path, &bytes)
    })
}

fn modified(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

fn changed(metadata: &Metadata) -> i64 {
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    /// Writes a file with this time of modification.
    fn write(path: &Path, text: &str, modified: SystemTime) -> io::Result<()> {
        fs::write(path, text)?;
        File::options().write(true).open(path)?.set_modified(modified)
    }

    fn memo(folder: &Path) -> Memo {
        Memo::new(folder.join("memo"))
    }

    /// Makes the saved memo of `file` say another digest: only who trusts the memo gives it.
    fn plant(folder: &Path, file: &Path, digest: Digest) -> io::Result<()> {
        let path = memo(folder).file(&fs::canonicalize(file)?);
        let mut record: Record = sealed::read(&path)?;
        record.files.values_mut().for_each(|known| known.digest = digest);
        sealed::write(&path, &record)
    }

    #[test]
    fn an_old_file_is_hashed_once_unless_all_are_read_again() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        fs::write(&file, "one")?;
        // No program can set the time of change.
        std::thread::sleep(Duration::from_nanos(TICK_NANOSECONDS as u64 + 100_000_000));
        let first = memo(folder.path());
        first.tree(&file, Owner::User)?;
        first.save();
        let planted = Digest::of(b"planted");
        plant(folder.path(), &file, planted)?;
        assert_eq!(memo(folder.path()).tree(&file, Owner::User)?.digest(), planted);

        let all = memo(folder.path()).rechecking(Recheck::All);
        assert_eq!(all.tree(&file, Owner::User)?.digest(), Digest::of(b"one"));
        all.save();
        assert_eq!(memo(folder.path()).tree(&file, Owner::User)?.digest(), Digest::of(b"one"));
        Ok(())
    }

    #[test]
    fn other_bytes_of_equal_size_and_time_are_noticed() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        let time = SystemTime::now() - Duration::from_secs(60);
        write(&file, "one", time)?;
        for owner in [Owner::User, Owner::Cache] {
            write(&file, "one", time)?;
            let first = memo(folder.path());
            assert_eq!(first.tree(&file, owner)?.digest(), Digest::of(b"one"));
            first.save();
            std::thread::sleep(Duration::from_millis(20));
            write(&file, "two", time)?;
            assert_eq!(first.tree(&file, owner)?.digest(), Digest::of(b"two"), "{owner:?}");
            assert_eq!(memo(folder.path()).tree(&file, owner)?.digest(), Digest::of(b"two"), "{owner:?}");
        }
        Ok(())
    }

    #[test]
    fn a_file_that_was_just_written_is_not_trusted() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        let memo = memo(folder.path());
        fs::write(&file, "one")?;
        memo.tree(&file, Owner::User)?;
        memo.save();
        plant(folder.path(), &file, Digest::of(b"planted"))?;
        let again = Memo::new(folder.path().join("memo"));
        assert_eq!(again.tree(&file, Owner::User)?.digest(), Digest::of(b"one"));
        Ok(())
    }

    #[test]
    fn files_that_share_an_inode_are_read_once() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        write(&one, "bytes", SystemTime::now() - Duration::from_secs(60))?;
        fs::hard_link(&one, &two)?;
        let memo = memo(folder.path());
        let digest = memo.tree(&one, Owner::Cache)?.digest();
        for known in memo.inodes().values_mut() {
            known.digest = Digest::of(b"planted");
        }
        assert_eq!(memo.tree(&one, Owner::Cache)?.digest(), digest);
        assert_eq!(memo.tree(&two, Owner::Cache)?.digest(), Digest::of(b"planted"));
        Ok(())
    }

    #[test]
    fn a_memo_that_cannot_be_read_or_written_is_only_slow() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("prompts.txt");
        write(&file, "one", SystemTime::now() - Duration::from_secs(60))?;
        let nowhere = Memo::new(file.join("memo"));
        assert_eq!(nowhere.tree(&file, Owner::Cache)?.digest(), Digest::of(b"one"));
        nowhere.save();

        let path = memo(folder.path()).file(&fs::canonicalize(&file)?);
        fs::create_dir_all(path.join("inside"))?;
        let first = memo(folder.path());
        first.tree(&file, Owner::Cache)?;
        first.save();
        assert!(path.is_file(), "a folder in its place is replaced");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, text.replace(&Digest::of(b"one").to_string(), &Digest::of(b"planted").to_string()))?;
        assert_eq!(memo(folder.path()).tree(&file, Owner::Cache)?.digest(), Digest::of(b"one"));
        Ok(())
    }
}
