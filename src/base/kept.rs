//! The files of a checkpoint. Each has its digest in a hidden file beside it, `.NAME.digest`, so that a damaged file is
//! never used: it is dropped, and its piece of work is done again.
//!
//! The digest is written before the file gets its name. A file that is replaced has two digests meanwhile, the old one
//! and the new one: a crash leaves one of both files, and either is whole.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Digest, FileError, Progress, sealed};

/// `.NAME.digest`.
#[derive(Default, Serialize, Deserialize)]
struct Digests {
    /// Of the file that was written last, and of the one before it.
    digests: Vec<Digest>,
}

/// Replaces the file at `path` by the one that `write` writes to the path it is given.
pub fn write<E: From<FileError>>(path: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let unfinished = beside(path, ".writing-", "");
    write(&unfinished)?;
    let settle = || {
        let before = digests(path)?.and_then(|known| known.digests.first().copied());
        let digests = [Digest::of_file(&unfinished)?].into_iter().chain(before).collect();
        sealed::write(&digest_path(path), &Digests { digests })?;
        fs::rename(&unfinished, path)
    };
    Ok(settle().map_err(FileError::at(path))?)
}

/// Whether the file is there and whole. A damaged one is noted and removed.
pub fn is_whole(path: &Path, progress: &dyn Progress) -> Result<bool, FileError> {
    let matches = matches(path)?;
    if matches == Some(false) {
        discard(path, DAMAGED, progress)?;
    }
    Ok(matches == Some(true))
}

/// What is wrong with a file that [`matches()`] refuses.
pub const DAMAGED: &str = "does not match its digest";

/// Whether the file matches its digest; `None` if there is no file. Changes nothing.
pub fn matches(path: &Path) -> Result<Option<bool>, FileError> {
    let found = match Digest::of_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(FileError::at(path))?,
    };
    let known = digests(path).map_err(FileError::at(path))?;
    Ok(Some(known.is_some_and(|known| known.digests.contains(&found))))
}

/// Removes a file that cannot be used, and says why.
pub fn discard(path: &Path, reason: &str, progress: &dyn Progress) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    progress.dropped(&name, reason);
    remove(path).map_err(FileError::at(path))
}

/// Removes a file and its digest.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    match fs::remove_file(digest_path(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The digests that the file may have; `None` if they are missing or damaged.
fn digests(path: &Path) -> io::Result<Option<Digests>> {
    match sealed::read(&digest_path(path)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        digests => digests.map(Some),
    }
}

fn digest_path(path: &Path) -> PathBuf {
    beside(path, ".", ".digest")
}

fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Notes;

    fn put(path: &Path, text: &str) -> Result<(), FileError> {
        write(path, |path| fs::write(path, text).map_err(FileError::at(path)))
    }

    #[test]
    fn every_flipped_bit_of_a_file_and_of_its_digest_is_noted_and_both_go()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("sums.safetensors");
        let notes = Notes::default();
        assert!(!is_whole(&path, &notes)?);
        for damaged in [path.clone(), digest_path(&path)] {
            put(&path, "sums")?;
            let whole = fs::read(&damaged)?;
            for bit in 0..8 * whole.len() {
                put(&path, "sums")?;
                assert!(is_whole(&path, &notes)? && notes.0.lock().expect("as above").is_empty());
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&damaged, flipped)?;
                assert!(!is_whole(&path, &notes)?);
                let told = std::mem::take(&mut *notes.0.lock().expect("as above"));
                assert!(told.len() == 1 && told[0].contains("sums.safetensors"), "{told:?}");
                assert_eq!(fs::read_dir(folder.path())?.count(), 0);
            }
        }
        Ok(())
    }

    #[test]
    fn a_crash_between_digest_and_file_leaves_the_old_file_whole() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("sums");
        put(&path, "old")?;
        let old = fs::read(&path)?;
        put(&path, "new")?;
        fs::write(&path, &old)?;
        let notes = Notes::default();
        assert!(is_whole(&path, &notes)?, "the file was not renamed yet");
        fs::write(&path, "")?;
        assert!(!is_whole(&path, &notes)? && !path.exists(), "an empty file is damaged");
        Ok(())
    }
}
