//! `losses.jsonl`: every term of the loss at every step, weighted and not, one JSON object per line. The file and the
//! checkpoint must agree after a crash. So lines are written out before a checkpoint is, and on resume the lines
//! beyond the checkpoint's step are removed: the file equals that of an uninterrupted run.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DistillError;
use crate::base::files;

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
    /// Mean-squared difference from the noise or velocity.
    pub task: f32,
    /// Mean-squared difference from the teacher's prediction.
    pub output: f32,
    /// By the path of the feature map.
    pub features: BTreeMap<String, FeatureLoss>,
    /// What was differentiated: all terms with all their weights.
    pub total: f32,
    /// L2 norm of the gradient before clipping.
    pub gradient_norm: f32,
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

/// The history being written.
pub(super) struct History {
    path: PathBuf,
    file: BufWriter<File>,
}

impl History {
    /// Opens the history in `folder` and keeps only the steps below `step`.
    pub(super) fn open(folder: &Path, step: u64, last: Option<u64>) -> Result<Self, DistillError> {
        let path = folder.join(HISTORY_FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(DistillError::file(&path))?,
        };
        let (mut kept, mut found) = (0, None);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            // A line truncated by a crash does not parse: it and all lines after it are removed.
            match serde_json::from_slice::<HistoryLine>(line) {
                Ok(parsed) if parsed.step < step && line.ends_with(b"\n") => {
                    kept += line.len();
                    found = Some(parsed.step);
                }
                _ => break,
            }
        }
        if found != last {
            let reason = format!("the last step in it is {found:?}, but the checkpoint needs {last:?}");
            return Err(DistillError::Checkpoint {
                path: folder.to_owned(),
                reason: format!("{HISTORY_FILE}: {reason}"),
            });
        }
        files::write_atomic(&path, &text[..kept]).map_err(DistillError::file(&path))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(DistillError::file(&path))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Adds a line; it may stay in memory until [`History::sync`].
    pub(super) fn push(&mut self, line: &HistoryLine) -> Result<(), DistillError> {
        let write = || {
            serde_json::to_writer(&mut self.file, line)?;
            self.file.write_all(b"\n")
        };
        let mut write = write;
        write().map_err(DistillError::file(&self.path))
    }

    /// Returns once all lines are on disk.
    pub(super) fn sync(&mut self) -> Result<(), DistillError> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .map_err(DistillError::file(&self.path))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
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
            total: 2.0,
            gradient_norm: 1e-7,
            learning_rate: 5e-5,
        }
    }

    #[test]
    fn lines_beyond_the_checkpoint_go() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let mut history = History::open(folder.path(), 0, None)?;
        for step in 0..5 {
            history.push(&line(step))?;
        }
        history.sync()?;
        let path = history.path().to_owned();
        fs::write(&path, [&fs::read(&path)?[..], b"{\"step\":5,"].concat())?;

        let mut history = History::open(folder.path(), 3, Some(2))?;
        history.push(&line(3))?;
        history.sync()?;
        assert_eq!(read(&path)?, (0..4).map(line).collect::<Vec<_>>());
        assert!(History::open(folder.path(), 9, Some(8)).is_err(), "steps 4 to 8 are missing");
        Ok(())
    }
}
