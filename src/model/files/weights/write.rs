//! Writes safetensors files. All writes go through this module, so that every file is complete or absent.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use safetensors::{SafeTensorError, View};

use crate::base::files;
use crate::base::unfinished::Unfinished;

/// Writes tensors as PyTorch's libraries expect them, with `format: pt` in the metadata.
pub fn write<V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (impl AsRef<str> + Ord + Display, V)>,
) -> io::Result<()> {
    write_with(path, tensors, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
}

/// Writes tensors and metadata to a file.
///
/// [`Unfinished`] is a folder, which is needed because the safetensors crate writes to randomly named files, which remain
/// if the process is killed; a checkpoint can be gigabytes. No other process writes to `path` at the same time.
pub fn write_with<V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (impl AsRef<str> + Ord + Display, V)>,
    metadata: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let unfinished = Unfinished::begin(path)?;
    let whole = unfinished.place();
    // The safetensors crate makes files that only their owner can read; this one has what the umask leaves.
    let permissions = File::create_new(&whole)?.metadata()?.permissions();
    safetensors::serialize_to_file(tensors, metadata, &whole).map_err(|error| match error {
        SafeTensorError::IoError(error) => error,
        error => io::Error::other(error),
    })?;
    fs::set_permissions(&whole, permissions)?;
    unfinished.finish()
}

/// Writes a file that fits into memory, with any metadata in a fixed order: the safetensors crate writes more than one
/// text in another order each time.
pub fn write_small<V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (impl AsRef<str> + Ord + Display, V)>,
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let plain = safetensors::serialize(tensors, None).map_err(io::Error::other)?;
    let (length, rest) =
        plain.split_first_chunk::<8>().expect("every file begins with the length of its header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut whole: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header)?;
    whole.insert("__metadata__".to_owned(), serde_json::to_value(metadata)?);
    let mut header = serde_json::to_vec(&whole)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat();
    files::write_atomic(path, &bytes)
}

/// Removes every safetensors file and index from a folder.
pub fn remove_from(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy();
        if name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn leftovers_of_a_killed_process_are_removed_and_the_file_is_replaced() -> candle_core::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        fs::write(&path, b"old")?;
        fs::create_dir(folder.path().join(".weights.safetensors.unfinished"))?;
        fs::write(folder.path().join(".weights.safetensors.unfinished/.tmpAbC"), b"part")?;
        write_with(&path, [("a", Tensor::new(&[1f32, 2.0], &Device::Cpu)?)], None)?;
        let read = candle_core::safetensors::load(&path, &Device::Cpu)?;
        assert_eq!(read["a"].to_vec1::<f32>()?, [1.0, 2.0]);
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_file_has_the_permissions_of_any_other() -> candle_core::Result<()> {
        let folder = tempfile::tempdir()?;
        let (path, other) = (folder.path().join("weights.safetensors"), folder.path().join("other"));
        write(&path, [("a", Tensor::new(&[1f32], &Device::Cpu)?)])?;
        fs::write(&other, b"")?;
        assert_eq!(fs::metadata(&path)?.permissions(), fs::metadata(&other)?.permissions());
        Ok(())
    }
}
