//! Several shards as one list of rows.

use std::path::Path;

use candle_core::{Device, Tensor};

use super::DataError;
use super::index::Entry;
use super::shard::{Shard, damaged, gather};
use crate::base::files;

/// The shards of an index.
pub(super) struct Rows {
    pub(super) shards: Vec<Shard>,
    /// The number of rows up to the end of each shard.
    pub(super) ends: Vec<usize>,
}

impl Rows {
    /// Opens the shards of an index; each must have the columns `needed`, with so many dimensions in a row. `index` is named in errors.
    pub(super) fn open(index: &Path, entries: &[Entry], needed: &[(&str, usize)]) -> Result<Self, DataError> {
        let folder = index.parent().unwrap_or(index);
        let (mut shards, mut ends) = (Vec::new(), Vec::new());
        for entry in entries {
            if !files::is_plain_name(&entry.file) {
                let reason = format!("it names the file `{}`, which is not in the same folder", entry.file);
                return Err(damaged(index, reason));
            }
            let shard = Shard::open(&folder.join(&entry.file))?;
            shard.check(entry.rows, needed)?;
            ends.push(ends.last().unwrap_or(&0) + entry.rows);
            shards.push(shard);
        }
        match shards.is_empty() {
            true => Err(damaged(index, "it lists no rows".to_owned())),
            false => Ok(Self { shards, ends }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The shard of each row, and its place there.
    pub(super) fn find(&self, rows: &[usize]) -> Vec<(&Shard, usize)> {
        let find = |row: &usize| {
            let shard = self.ends.partition_point(|end| end <= row);
            assert!(shard < self.shards.len(), "BUG: row {row} of {}", self.len());
            let shard_start = self.ends[shard] - self.shards[shard].rows();
            (&self.shards[shard], row - shard_start)
        };
        rows.iter().map(find).collect()
    }

    /// Appends the rows of `others`.
    pub(super) fn append(&mut self, others: Self) {
        let before = self.len();
        self.ends.extend(others.ends.into_iter().map(|end| before + end));
        self.shards.extend(others.shards);
    }
}

/// Rows of a column that the files were checked for.
pub(super) fn needed(rows: &[(&Shard, usize)], column: &str, device: &Device) -> Result<Tensor, DataError> {
    Ok(gather(rows, column, device)?.unwrap_or_else(|| panic!("BUG: `{column}` was not checked")))
}
