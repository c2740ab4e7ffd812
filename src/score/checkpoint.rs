//! Sums over the points done so far, written whole after each batch of points, so that a run which is
//! cut off goes on with the very sums it had.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::gram::f64s_of;
use crate::base::{Digest, files};

const POINTS: &str = "points";

/// Named vectors of sums, and over how many points they go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) points: usize,
    pub(super) vectors: BTreeMap<String, Vec<f64>>,
}

impl Sums {
    /// The file in `folder` for the work that `what` describes in full.
    pub(super) fn path(folder: &Path, name: &str, what: &str) -> PathBuf {
        folder.join(format!("{name}-{}.safetensors", Digest::of(what.as_bytes()).short()))
    }

    /// What was written last, or nothing yet.
    pub(super) fn resume(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
        let points = metadata.metadata().as_ref().and_then(|map| map.get(POINTS)?.parse().ok());
        let points = points.ok_or_else(|| invalid(format!("says no number of {POINTS}")))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
        let vectors = tensors.iter().map(|(name, view)| (name.to_owned(), f64s_of(view.data()))).collect();
        Ok(Self { points, vectors })
    }

    /// Adds the sums of one more batch of `points`.
    pub(super) fn add(&mut self, points: usize, batch: impl IntoIterator<Item = (&'static str, Vec<f64>)>) {
        self.points += points;
        for (name, values) in batch {
            let sums = self.vectors.entry(name.to_owned()).or_insert_with(|| vec![0.0; values.len()]);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }

    /// Replaces the file.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let bytes: Vec<(&String, Vec<u8>)> = self
            .vectors
            .iter()
            .map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(name, bytes)| {
            let view = TensorView::new(Dtype::F64, vec![bytes.len() / 8], bytes);
            (name.as_str(), view.expect("eight bytes make a double"))
        });
        let metadata = HashMap::from([(POINTS.to_owned(), self.points.to_string())]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)?;
        files::write_atomic(path, &file)
    }

    /// The means over the points of a vector that was added.
    pub(super) fn means(&self, name: &str) -> Vec<f64> {
        let sums = self.vectors.get(name).expect("BUG: every batch adds the same vectors");
        sums.iter().map(|sum| sum / self.points as f64).collect()
    }
}
