//! The files of a latents artefact: their names, and how they are written.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{DataError, finite};
use crate::base::files;
use crate::model::files::weights;
use crate::model::network::Conditioning;

/// The index of a latents artefact.
pub const FILE: &str = "latents.json";
pub(super) const EMPTY: &str = "empty.safetensors";
pub(super) const FORMAT: u32 = 1;

/// Samples of a shard of latents: 64 MB of SDXL's.
pub(super) const SHARD_ROWS: usize = 128;
/// Captions of a shard of texts: 80 MB of SDXL's states.
pub(super) const SHARD_TEXTS: usize = 128;

/// `latents.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) format: u32,
    /// The shards of latents, in the order of their rows.
    pub(super) latents: Vec<Entry>,
    /// The shards of texts, in the order of the captions.
    pub(super) texts: Vec<Entry>,
    /// The distinct captions.
    pub(super) captions: Vec<String>,
}

/// A shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) file: String,
    pub(super) rows: usize,
}

impl Entry {
    pub(super) fn new(path: &Path, rows: usize) -> Self {
        Self { file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), rows }
    }
}

/// The path of the latents of the shard that begins with sample `start`; `place` counts its shapes. Padded, so that names
/// sort as rows do.
pub(super) fn latents_path(folder: &Path, start: usize, place: usize) -> PathBuf {
    let shape = if place == 0 { String::new() } else { format!("-{place:03}") };
    folder.join(format!("latents-{start:09}{shape}.safetensors"))
}

/// The path of the shard of texts that begins with caption `start`.
pub(super) fn texts_path(folder: &Path, start: usize) -> PathBuf {
    folder.join(format!("texts-{start:09}.safetensors"))
}

/// The path of the states of the empty prompt.
pub(super) fn empty_path(folder: &Path) -> PathBuf {
    folder.join(EMPTY)
}

/// The shards of texts of so many captions.
pub(super) fn text_entries(captions: usize) -> Vec<Entry> {
    let entry = |start| Entry::new(&texts_path(Path::new(""), start), SHARD_TEXTS.min(captions - start));
    (0..captions).step_by(SHARD_TEXTS).map(entry).collect()
}

/// Writes a shard of texts, or the states of the empty prompt.
pub(super) fn write_texts(path: &Path, texts: &Conditioning) -> Result<(), DataError> {
    let mut tensors = vec![("encoder_hidden_states", &texts.encoder_hidden_states)];
    tensors.extend(texts.text_embeds.as_ref().map(|embeds| ("text_embeds", embeds)));
    write(path, tensors)
}

/// Writes a shard of latents with the caption and the repeats of each row.
pub(super) fn write_latents(
    path: &Path,
    latents: &Tensor,
    captions: &[(usize, u32)],
    time_ids: Option<&Tensor>,
) -> Result<(), DataError> {
    let column = |numbers: Vec<i64>| Tensor::new(numbers, &Device::Cpu);
    let repeats = column(captions.iter().map(|(_, repeats)| i64::from(*repeats)).collect())?;
    let is_repeated = captions.iter().any(|(_, repeats)| *repeats != 1);
    let captions = column(captions.iter().map(|(caption, _)| *caption as i64).collect())?;
    let mut tensors = vec![("latents", latents), ("caption", &captions)];
    tensors.extend(is_repeated.then_some(("repeats", &repeats)));
    tensors.extend(time_ids.map(|ids| ("time_ids", ids)));
    write(path, tensors)
}

/// Writes the index. Call it once all shards exist.
pub(super) fn write_index(folder: &Path, latents: Vec<Entry>, captions: &[String]) -> Result<(), DataError> {
    let index =
        Index { format: FORMAT, latents, texts: text_entries(captions.len()), captions: captions.to_vec() };
    let path = folder.join(FILE);
    files::write_json(&path, &index).map_err(DataError::file(&path))
}

/// Writes tensors of one row per sample; a number that is not finite is an error.
fn write(path: &Path, tensors: Vec<(&'static str, &Tensor)>) -> Result<(), DataError> {
    let mut on_host = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        if tensor.dtype().is_float() {
            finite::check(path, name, &tensor)?;
        }
        on_host.push((name, tensor));
    }
    weights::write(path, on_host).map_err(DataError::file(path))
}
