//! An artefact that is being made: a folder to write into, and the steps by which it becomes an artefact.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::memo::{Memo, TICK_NANOSECONDS};
use super::tree::Hidden;
use super::{CacheError, Entry, Made, Store, Tree};
use crate::base::lock::FileLock;
use crate::base::{Digest, Interrupt, Manifest, files, sealed};

/// The folder with the names of intermediate artefacts.
const PARTS: &str = "parts";

/// An artefact that is being made. It holds the lock of its key until it is dropped.
///
/// `output/` begins empty; `checkpoint/` holds what earlier attempts left. Dropping it without
/// `commit` clears the output and keeps the checkpoint.
pub struct PendingArtefact<'a> {
    store: &'a Store,
    key: Digest,
    folder: PathBuf,
    lock: FileLock,
}

impl<'a> PendingArtefact<'a> {
    pub(super) fn open(
        store: &'a Store,
        key: Digest,
        lock: FileLock,
        from_scratch: bool,
    ) -> Result<Self, CacheError> {
        let folder = store.work_folder(&key);
        let work = Self { store, key, lock, folder };
        let stale = if from_scratch { work.folder.clone() } else { work.output() };
        files::remove_folder(&stale).map_err(CacheError::of(&stale))?;
        for fresh in [work.output(), work.checkpoint()] {
            fs::create_dir_all(&fresh).map_err(CacheError::of(&fresh))?;
        }
        Ok(work)
    }

    /// The folder that becomes the artefact.
    pub fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// The folder for checkpoints, which survives a crash.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    /// Whether this process still holds the lock of the key. After a long suspension another may make the artefact.
    pub(super) fn is_ours(&self) -> bool {
        self.lock.is_ours()
    }

    /// Notes that the artefact is made of an intermediate one. The note survives a crash, so that the part is not taken for
    /// something that nobody needs.
    pub fn note_part(&self, key: &Digest) -> Result<(), CacheError> {
        let note = self.parts().join(key.to_string());
        let write = || fs::create_dir_all(self.parts()).and_then(|()| File::create(&note));
        write().map(drop).map_err(CacheError::of(&note))
    }

    fn parts(&self) -> PathBuf {
        self.folder.join(PARTS)
    }

    /// Removes the checkpoint: the next attempt begins at the start.
    pub fn forget(&self) -> Result<(), CacheError> {
        let checkpoint = self.checkpoint();
        files::remove_folder(&checkpoint).map_err(CacheError::of(&checkpoint))
    }

    /// Makes the output the artefact of this key: synced to the disk, put in place under its digest,
    /// and only then entered. `manifest` is the one whose hash is the key.
    pub(super) fn commit(self, manifest: &Manifest, made: Made) -> Result<Entry, CacheError> {
        assert_eq!(manifest.key(), self.key, "BUG: the manifest is not that of the key");
        let (output, memo) = (self.output(), &self.store.memo);
        let (files, hidden) = settle(&output, memo).map_err(CacheError::of(&output))?.split();
        let is_sealed = |name: &String| sealed::read::<serde_json::Value>(&output.join(name)).is_ok();
        let hidden = hidden.into_iter().filter(is_sealed).collect();
        let digest = files.digest();
        let (manifest, parts) = (manifest.clone(), noted_parts(&self.folder));
        let key = self.key;
        self.enter(Entry { key, manifest, digest, files, hidden, parts, made })
    }

    /// The key.
    pub(super) fn key(&self) -> &Digest {
        &self.key
    }

    /// Removes what is in the output.
    pub(super) fn clear(&self) -> Result<(), CacheError> {
        let output = self.output();
        let clear = files::remove_folder(&output).and_then(|()| fs::create_dir_all(&output));
        clear.map_err(CacheError::of(&output))
    }

    /// Syncs the output to the disk, and says whether its files are those of an entry.
    pub(super) fn settles_as(&self, entry: &Entry) -> Result<bool, CacheError> {
        let output = self.output();
        let settled = settle(&output, &self.store.memo).map_err(CacheError::of(&output))?;
        Ok(settled.split() == (entry.files.clone(), entry.hidden.clone()))
    }

    /// Puts the output in place, which is settled and that of the entry, and enters it. An output of which the cache has
    /// equal bytes already may be empty.
    pub(super) fn enter(self, entry: Entry) -> Result<Entry, CacheError> {
        // Until the entry is there, nothing says that somebody needs the artefact.
        let lock = self.put_in_place(&entry)?;
        let path = self.store.entry_file(&self.key);
        sealed::write(&path, &entry)
            .and_then(|()| File::open(self.store.place("entries"))?.sync_all())
            .map_err(CacheError::of(&path))?;
        drop(lock);
        // The checkpoint is no longer needed. If it stays, that only costs space.
        let _ = files::remove_folder(&self.checkpoint()).and_then(|()| files::remove_folder(&self.parts()));
        // Last, because the checkpoint may be linked to the artefact: one link less is a new time of change.
        let folder = self.store.artefact_folder(&entry.digest);
        self.store.memo.know(&folder, &entry.files).map_err(CacheError::of(&folder))?;
        Ok(entry)
    }

    /// Moves the output to the folder of its digest; equal bytes that are already there stay. Gives the artefact's lock.
    fn put_in_place(&self, entry: &Entry) -> Result<FileLock, CacheError> {
        let (store, output) = (self.store, self.output());
        let folder = store.artefact_folder(&entry.digest);
        // Others hold the lock only for a moment, so the wait is neither reported nor interruptible.
        let lock = store.lock(&format!("artefact-{}", entry.digest), &Interrupt::default(), &mut |_| {})?;
        match store.damage(entry)? {
            None => return Ok(lock),
            Some(_) => store.remove_artefact(&entry.digest)?,
        }
        let artefacts = folder.parent().expect("an artefact lies in a folder");
        fs::create_dir_all(artefacts)
            .and_then(|()| fs::rename(&output, &folder))
            .and_then(|()| File::open(artefacts)?.sync_all())
            .map_err(CacheError::of(&folder))?;
        Ok(lock)
    }
}

impl Drop for PendingArtefact<'_> {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        // Best effort: the next attempt at this key clears the rest.
        let _ = files::remove_folder(&self.output());
        if is_over(&self.folder) {
            let _ = files::remove_folder(&self.folder);
        }
    }
}

/// Hashes a finished folder, makes its files read-only and syncs it to the disk.
///
/// Its files are dated back a little more than a tick, so that the memo may trust their digests at once;
/// an edit from now on gives another time. Files that are linked from other artefacts are like this already and stay
/// as they are.
fn settle(output: &Path, memo: &Memo) -> io::Result<Tree> {
    let here = fs::canonicalize(output)?;
    let past = SystemTime::now() - Duration::from_nanos(TICK_NANOSECONDS as u64 + 1_000_000_000);
    let mut folders = BTreeSet::from([here.clone()]);
    let tree = Tree::read(&here, Hidden::Listed, &mut |_, place, metadata: &Metadata| {
        if fs::canonicalize(place)? == place {
            let file = File::open(place)?;
            if metadata.modified()? > past {
                file.set_modified(past)?;
            }
            protect(&file, metadata)?;
            file.sync_all()?;
            folders
                .extend(place.ancestors().skip(1).take_while(|p| p.starts_with(&here)).map(Path::to_owned));
        }
        memo.digest(place)
    })?;
    folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
    Ok(tree)
}

/// Makes a file read-only for everybody. Folders stay writable, so that artefacts can be removed.
fn protect(file: &File, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.permissions().mode();
    if mode & 0o222 == 0 {
        return Ok(());
    }
    match file.set_permissions(fs::Permissions::from_mode(mode & !0o222)) {
        // Some network file systems know no permissions.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        protected => protected,
    }
}

/// The intermediate artefacts that the unfinished work in a folder is made of.
pub(super) fn noted_parts(work: &Path) -> Vec<Digest> {
    let names = fs::read_dir(work.join(PARTS)).into_iter().flatten().flatten();
    let mut parts: Vec<Digest> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    parts.sort_unstable();
    parts
}

/// Whether the folder of unfinished work keeps nothing for the next attempt.
pub(super) fn is_over(work: &Path) -> bool {
    is_empty(&work.join("checkpoint")) && is_empty(&work.join(PARTS))
}

/// Whether a folder holds nothing but hidden files, which writes that were cut off leave.
fn is_empty(folder: &Path) -> bool {
    let is_hidden = |entry: fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
    fs::read_dir(folder).map_or(true, |entries| entries.flatten().all(is_hidden))
}
