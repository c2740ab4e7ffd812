//! Sums over the finished pieces of work. The file is replaced after each piece, so that an interrupted run resumes with
//! exactly the same sums.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::tensor::SafeTensors;

use super::context::ScoringContext;
use super::doubles;
use super::error::ScoreError;
use crate::base::{Digest, FileError, kept};

const DONE: &str = "done";

/// Named vectors of sums, and the amount of work they cover, in points or another unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sums {
    done: usize,
    vectors: BTreeMap<String, Vec<f64>>,
}

impl Sums {
    /// The file in `folder` for the work that `what` describes completely.
    pub(super) fn path(folder: &Path, name: &str, what: &str) -> PathBuf {
        folder.join(format!("{name}-{}.safetensors", Digest::of(what.as_bytes()).short()))
    }

    /// Adds up the results of `measure` for each of the `pieces`: adjacent ranges from 0, counted in `unit`. Begins after
    /// the last piece in the file at `path`.
    pub(super) fn over(
        pieces: &[Range<usize>],
        unit: &'static str,
        path: &Path,
        context: &ScoringContext<'_>,
        mut measure: impl FnMut(Range<usize>) -> Result<Vec<(String, Vec<f64>)>, ScoreError>,
    ) -> Result<Self, ScoreError> {
        context.progress.length(pieces.last().map_or(0, |piece| piece.end) as u64, unit);
        let mut sums = match kept::is_whole(path, context.progress)? {
            true => Self::read(path).map_err(FileError::at(path))?,
            false => Self::default(),
        };
        let done = sums.done;
        if done > 0 {
            context.progress.resumed(done as u64);
        }
        context.progress.position(done as u64);
        for piece in pieces.iter().skip_while(|piece| piece.end <= done) {
            context.interrupt.check()?;
            for (name, values) in measure(piece.clone())? {
                let sum = sums.vectors.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            sums.done = piece.end;
            sums.save(path)?;
            context.progress.position(sums.done as u64);
        }
        Ok(sums)
    }

    /// The sums that were written last.
    fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
        let done = metadata.metadata().as_ref().and_then(|map| map.get(DONE)?.parse().ok());
        let done =
            done.ok_or_else(|| invalid("the metadata do not say how much work is finished".to_owned()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
        let vectors = tensors.iter().map(|(name, view)| (name.to_owned(), doubles::values(&view))).collect();
        Ok(Self { done, vectors })
    }

    /// Replaces the file.
    fn save(&self, path: &Path) -> Result<(), FileError> {
        let vectors = self.vectors.iter();
        let vectors = vectors.map(|(name, values)| (name.as_str(), vec![values.len()], values.as_slice()));
        let done = HashMap::from([(DONE.to_owned(), self.done.to_string())]);
        kept::write(path, |path| doubles::write(path, vectors, done).map_err(FileError::at(path)))
    }

    /// A vector that was added.
    pub(super) fn get(&self, name: &str) -> &[f64] {
        self.vectors.get(name).expect("BUG: a sum is read that no piece added")
    }

    /// The means of a vector over the finished work.
    pub(super) fn means(&self, name: &str) -> Vec<f64> {
        self.get(name).iter().map(|sum| sum / self.done as f64).collect()
    }
}
