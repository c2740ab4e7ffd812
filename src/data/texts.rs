//! The text states of distinct captions, in shards. Beside latents they are those of the pictures; as an artefact of their own
//! they are texts without pictures, which random conditioning draws from.

use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::DataError;
use super::index::{Entry, SHARD_TEXTS, text_entries, texts_path, write_texts};
use super::rows::{Rows, needed};
use super::shard::{Shard, damaged, gather};
use crate::base::files;
use crate::model::network::Conditioning;

/// The index of texts without pictures.
pub const FILE: &str = "texts.json";
const FORMAT: u32 = 1;

/// `texts.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    /// The shards, in the order of the captions.
    texts: Vec<Entry>,
    /// The distinct captions.
    captions: Vec<String>,
}

/// The states of distinct captions.
pub struct Texts {
    rows: Rows,
    captions: Vec<String>,
}

impl Texts {
    /// Opens an artefact of texts and checks its files against the index.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE);
        let index = files::read_json_of(&path, FORMAT, |index: &Index| index.format)
            .map_err(DataError::file(&path))?;
        Self::of_index(&path, &index.texts, index.captions)
    }

    /// Writes the index of an artefact of texts. Call it once all shards exist.
    pub(super) fn finish(folder: &Path, captions: &[String]) -> Result<(), DataError> {
        let index =
            Index { format: FORMAT, texts: text_entries(captions.len()), captions: captions.to_vec() };
        let path = folder.join(FILE);
        files::write_json(&path, &index).map_err(DataError::file(&path))
    }

    /// Writes states in memory as shards.
    pub(super) fn write(folder: &Path, states: &Conditioning) -> Result<(), DataError> {
        let count = states.encoder_hidden_states.dim(0)?;
        (0..count).step_by(SHARD_TEXTS).try_for_each(|start| {
            let part = states.narrow(start, SHARD_TEXTS.min(count - start))?;
            write_texts(&texts_path(folder, start), &part)
        })
    }

    /// Writes states in memory as an artefact, one for each caption.
    #[cfg(test)]
    pub fn save(folder: &Path, states: &Conditioning, captions: &[String]) -> Result<(), DataError> {
        Self::write(folder, states)?;
        Self::finish(folder, captions)
    }

    /// The texts that an index lists.
    pub(super) fn of_index(
        index: &Path,
        entries: &[Entry],
        captions: Vec<String>,
    ) -> Result<Self, DataError> {
        let rows = Rows::open(index, entries, &[("encoder_hidden_states", 2)])?;
        match rows.len() == captions.len() {
            true => Ok(Self { rows, captions }),
            false => {
                let (captions, texts) = (captions.len(), rows.len());
                let reason = format!("it lists {captions} captions, but the shards hold {texts}");
                Err(damaged(index, reason))
            }
        }
    }

    /// Opens the shards of these captions in a folder that has no index yet.
    pub(super) fn unfinished(folder: &Path, captions: &[String]) -> Result<Self, DataError> {
        Self::of_index(&folder.join(FILE), &text_entries(captions.len()), captions.to_vec())
    }

    /// The number of captions, at least 1.
    pub fn count(&self) -> usize {
        self.captions.len()
    }

    /// A caption.
    pub fn caption(&self, index: usize) -> &str {
        &self.captions[index]
    }

    /// The states of these captions, without `time_ids`.
    pub(super) fn fetch(&self, captions: &[usize], device: &Device) -> Result<Conditioning, DataError> {
        states(&self.rows.find(captions), device)
    }

    /// Appends other texts, whose states must have the same shapes.
    pub(super) fn append(&mut self, others: Self) -> Result<(), DataError> {
        let first = self.count();
        self.rows.append(others.rows);
        self.captions.extend(others.captions);
        self.fetch(&[0, first], &Device::Cpu).map(drop)
    }
}

/// Text states of rows, without `time_ids`.
pub(super) fn states(rows: &[(&Shard, usize)], device: &Device) -> Result<Conditioning, DataError> {
    Ok(Conditioning {
        encoder_hidden_states: needed(rows, "encoder_hidden_states", device)?,
        text_embeds: gather(rows, "text_embeds", device)?,
        time_ids: None,
    })
}
