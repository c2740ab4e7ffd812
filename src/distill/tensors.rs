//! Safetensors files written as one: whole or absent.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use candle_core::Tensor;

/// Writes `tensors` and `metadata` in a folder beside `path`, syncs, and renames.
///
/// The folder is there because the safetensors crate leaves randomly named parts behind when it is killed: they
/// would pile up, and a checkpoint can be gigabytes. Nobody else writes there at the same time.
pub(super) fn save(
    path: &Path,
    tensors: Vec<(String, Tensor)>,
    metadata: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(&unfinished)?,
    }
    let whole = unfinished.join("whole.safetensors");
    safetensors::serialize_to_file(tensors, metadata, &whole).map_err(io::Error::other)?;
    File::open(&whole)?.sync_all()?;
    fs::rename(&whole, path)?;
    fs::remove_dir(&unfinished)
}
