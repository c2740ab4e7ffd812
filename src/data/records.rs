//! `samples.jsonl`: what became of every sample, one line each. While samples are encoded, each shard of latents has its
//! part of the list in a file of its own, which is written last and says that the shard is whole.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::DataError;
use super::sample::LeftOut;
use crate::base::{Digest, FileError, files, kept};

/// The list of a finished artefact.
pub(super) const FILE: &str = "samples.jsonl";

/// What became of one sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its name inside the source.
    pub(super) sample: String,
    /// The size of its file, or of its part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    /// The digest of these bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caption: Option<String>,
    /// How often it is trained in each epoch.
    pub(super) repeats: u32,
    /// Height and width of its latents; nothing if it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) latents: Option<(usize, usize)>,
    /// Why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) skipped: Option<String>,
    /// What of it was ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

/// A sample that was encoded or skipped.
pub(super) struct Row {
    pub(super) record: Record,
    /// The index of its caption.
    pub(super) caption: usize,
    /// Its latents [channels, height, width] on the host; nothing if it is skipped.
    pub(super) latents: Option<Tensor>,
    /// SDXL's sizes; nothing if it is skipped, or drawn.
    pub(super) sizes: Option<[f32; 6]>,
}

impl Record {
    /// A sample that is skipped before it is read.
    pub(super) fn of_left_out(sample: &LeftOut) -> Self {
        Self { sample: sample.name.clone(), skipped: Some(sample.reason.clone()), ..Self::default() }
    }

    /// The sample with the reason, if it was skipped.
    pub(super) fn as_left_out(&self) -> Option<LeftOut> {
        let reason = self.skipped.clone()?;
        Some(LeftOut { name: self.sample.clone(), reason })
    }
}

/// The part of the list that belongs to the shard which begins with sample `start`. It is hidden, because it is no part of
/// the artefact.
pub(super) fn part_path(folder: &Path, start: usize) -> PathBuf {
    folder.join(format!(".samples-{start:09}.jsonl"))
}

/// Writes the part of a shard.
pub(super) fn write_part(folder: &Path, start: usize, records: &[Record]) -> Result<(), DataError> {
    kept::write(&part_path(folder, start), |path| write(path, records.iter()))
}

/// Reads a part, which must be whole.
pub(super) fn read_part(folder: &Path, start: usize) -> Result<Vec<Record>, DataError> {
    let path = part_path(folder, start);
    let text = std::fs::read_to_string(&path).map_err(DataError::file(&path))?;
    let parse = |line: &str| {
        serde_json::from_str(line).map_err(|error| DataError::file(&path)(std::io::Error::other(error)))
    };
    text.lines().map(parse).collect()
}

/// Writes a list.
pub(super) fn write<'r>(path: &Path, records: impl Iterator<Item = &'r Record>) -> Result<(), DataError> {
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(record).map_err(|error| FileError::at(path)(error.into()))?);
        text.push('\n');
    }
    files::write_atomic(path, text.as_bytes()).map_err(DataError::file(path))
}
