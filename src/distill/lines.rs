//! Files of JSON lines that a training writes and that must agree with its checkpoint after a crash. So lines are
//! written out before a checkpoint is, the checkpoint holds their digest, and on resume the lines beyond it are removed:
//! the file equals that of an uninterrupted run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::DistillError;
use crate::base::{Digest, files};

/// A file up to some line: its length, and the digest of these bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    bytes: usize,
    digest: Digest,
}

impl Mark {
    fn of(lines: &[u8]) -> Self {
        Self { bytes: lines.len(), digest: Digest::of(lines) }
    }

    /// The marked part of a file, if it is whole.
    fn part<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        text.get(..self.bytes).filter(|lines| Digest::of(lines) == self.digest)
    }
}

/// Of an empty file.
impl Default for Mark {
    fn default() -> Self {
        Self::of(&[])
    }
}

/// Whether the file at `path` is whole up to a mark.
pub(super) fn holds(path: &Path, mark: &Mark) -> Result<bool, DistillError> {
    Ok(mark.part(&contents(path)?).is_some())
}

/// Reads all lines.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    fs::read_to_string(path)?.lines().map(parsed).collect()
}

/// Reads the lines of a file that is being written: a last line without its end is left out.
pub(super) fn read_unfinished<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let text = fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parsed).collect()
}

fn parsed<T: DeserializeOwned>(line: &str) -> io::Result<T> {
    serde_json::from_str(line).map_err(io::Error::from)
}

/// The bytes of a file; none if there is no file.
fn contents(path: &Path) -> Result<Vec<u8>, DistillError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(DistillError::file(path)),
    }
}

/// A file being written.
pub(super) struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: usize,
    hasher: blake3::Hasher,
}

impl Lines {
    /// Opens the file, which [`holds`] the mark, and removes what is beyond it.
    pub(super) fn open(path: PathBuf, mark: &Mark) -> Result<Self, DistillError> {
        let text = contents(&path)?;
        let lines = mark.part(&text).expect("BUG: a file is opened at a mark that it does not hold");
        files::write_atomic(&path, lines).map_err(DistillError::file(&path))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(DistillError::file(&path))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(lines);
        Ok(Self { path, file: BufWriter::new(file), bytes: lines.len(), hasher })
    }

    /// Adds a line; it may stay in memory until [`Lines::sync`].
    pub(super) fn push(&mut self, line: &impl Serialize) -> Result<(), DistillError> {
        let mut text = serde_json::to_vec(line).expect("numbers and names serialise");
        text.push(b'\n');
        self.bytes += text.len();
        self.hasher.update(&text);
        self.file.write_all(&text).map_err(DistillError::file(&self.path))
    }

    /// Hands all lines to the system, so that a report of the running training shows them.
    pub(super) fn flush(&mut self) -> Result<(), DistillError> {
        self.file.flush().map_err(DistillError::file(&self.path))
    }

    /// Returns once all lines are on disk, with the mark after the last one.
    pub(super) fn sync(&mut self) -> Result<Mark, DistillError> {
        self.flush()?;
        self.file.get_ref().sync_data().map_err(DistillError::file(&self.path))?;
        Ok(Mark { bytes: self.bytes, digest: self.hasher.finalize().into() })
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_checkpoint_go() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("losses.jsonl");
        let mut lines = Lines::open(path.clone(), &Mark::default())?;
        let mut marks = Vec::new();
        for step in 0..5u64 {
            lines.push(&step)?;
            marks.push(lines.sync()?);
        }
        fs::write(&path, [&fs::read(&path)?[..], b"{\"step\":5,"].concat())?;
        assert_eq!(read_unfinished::<u64>(&path)?, [0, 1, 2, 3, 4]);
        assert!(read::<u64>(&path).is_err());

        assert!(holds(&path, &marks[2])?);
        let mut lines = Lines::open(path.clone(), &marks[2])?;
        lines.push(&3u64)?;
        assert_eq!(lines.sync()?, marks[3]);
        assert_eq!(read::<u64>(&path)?, [0, 1, 2, 3]);
        assert!(!holds(&path, &marks[4])?, "step 4 is missing");
        Ok(())
    }
}
