//! `losses.jsonl`: every term of the loss at every step, weighted and not, one JSON object per line. The file and the
//! checkpoint must agree after a crash. So lines are written out before a checkpoint is, the checkpoint holds their
//! digest, and on resume the lines beyond it are removed: the file equals that of an uninterrupted run.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DistillError;
use super::term_weights::ByKind;
use crate::base::{Digest, files};

/// The history's name inside the checkpoint folder.
pub const HISTORY_FILE: &str = "losses.jsonl";

/// The loss of one feature map.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureLoss {
    /// The mean-squared difference.
    pub plain: f32,
    /// The same times the map's weight `a_l`; `feature-weight` is applied in addition.
    pub weighted: f32,
}

/// One line of `losses.jsonl`: what was measured before the update of this step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Counted from 0.
    pub step: u64,
    /// Mean-squared difference from the noise or velocity, each sample weighted if `min-snr-gamma` is given.
    pub task: f32,
    /// Mean-squared difference from the teacher's prediction.
    pub output: f32,
    /// By the path of the feature map.
    pub features: BTreeMap<String, FeatureLoss>,
    /// The addends of `total`: the terms with all their weights.
    pub weighted: ByKind,
    /// What was differentiated: all terms with all their weights.
    pub total: f32,
    /// L2 norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// L2 norms of the gradients of the addends, at the steps that `gradient-norms-every` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norms: Option<ByKind>,
    /// Learning rate of this step's update.
    pub learning_rate: f64,
}

/// Reads a whole history.
pub fn read(path: &Path) -> io::Result<Vec<HistoryLine>> {
    fs::read_to_string(path)?
        .lines()
        .map(|line| serde_json::from_str(line).map_err(io::Error::from))
        .collect()
}

/// A history up to some step: its length, and the digest of these bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    bytes: usize,
    digest: Digest,
}

impl Mark {
    fn of(lines: &[u8]) -> Self {
        Self { bytes: lines.len(), digest: Digest::of(lines) }
    }

    /// The marked part of a history, if it is whole.
    fn part<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        text.get(..self.bytes).filter(|lines| Digest::of(lines) == self.digest)
    }
}

/// Of an empty history.
impl Default for Mark {
    fn default() -> Self {
        Self::of(&[])
    }
}

/// Whether the history at `path` is whole up to a mark.
pub(super) fn holds(path: &Path, mark: &Mark) -> Result<bool, DistillError> {
    Ok(mark.part(&contents(path)?).is_some())
}

/// The bytes of a history; none if there is no file.
fn contents(path: &Path) -> Result<Vec<u8>, DistillError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(DistillError::file(path)),
    }
}

/// The history being written.
pub(super) struct History {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: usize,
    hasher: blake3::Hasher,
}

impl History {
    /// Opens the history in `folder`, which [`holds`] the mark, and removes what is beyond it.
    pub(super) fn open(folder: &Path, mark: &Mark) -> Result<Self, DistillError> {
        let path = folder.join(HISTORY_FILE);
        let text = contents(&path)?;
        let lines = mark.part(&text).expect("BUG: a history is opened at a mark that it does not hold");
        files::write_atomic(&path, lines).map_err(DistillError::file(&path))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(DistillError::file(&path))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(lines);
        Ok(Self { path, file: BufWriter::new(file), bytes: lines.len(), hasher })
    }

    /// Adds a line; it may stay in memory until [`History::sync`].
    pub(super) fn push(&mut self, line: &HistoryLine) -> Result<(), DistillError> {
        let mut text = serde_json::to_vec(line).expect("numbers and names serialise");
        text.push(b'\n');
        self.bytes += text.len();
        self.hasher.update(&text);
        self.file.write_all(&text).map_err(DistillError::file(&self.path))
    }

    /// Returns once all lines are on disk, with the mark after the last one.
    pub(super) fn sync(&mut self) -> Result<Mark, DistillError> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .map_err(DistillError::file(&self.path))?;
        Ok(Mark { bytes: self.bytes, digest: self.hasher.finalize().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> HistoryLine {
        let features = BTreeMap::from([("mid_block".to_owned(), FeatureLoss { plain: 0.1, weighted: 0.3 })]);
        HistoryLine {
            step,
            task: 1.5,
            output: 0.25,
            features,
            weighted: ByKind { task: 1.0, output: 0.5, features: 0.5 },
            total: 2.0,
            gradient_norm: 1e-7,
            gradient_norms: None,
            learning_rate: 5e-5,
        }
    }

    #[test]
    fn lines_beyond_the_checkpoint_go() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let mut history = History::open(folder.path(), &Mark::default())?;
        let mut marks = Vec::new();
        for step in 0..5 {
            history.push(&line(step))?;
            marks.push(history.sync()?);
        }
        let path = folder.path().join(HISTORY_FILE);
        fs::write(&path, [&fs::read(&path)?[..], b"{\"step\":5,"].concat())?;

        assert!(holds(&path, &marks[2])?);
        let mut history = History::open(folder.path(), &marks[2])?;
        history.push(&line(3))?;
        assert_eq!(history.sync()?, marks[3]);
        assert_eq!(read(&path)?, (0..4).map(line).collect::<Vec<_>>());
        assert!(!holds(&path, &marks[4])?, "step 4 is missing");
        Ok(())
    }
}
