//! Writing safetensors files.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::{fs, io};

use safetensors::{SafeTensorError, View};

use crate::base::files;

/// Writes tensors into one safetensors file as PyTorch's libraries expect it: whole or not at all.
pub fn write<V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (impl AsRef<str> + Ord + Display, V)>,
) -> io::Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    files::write_atomic_at(path, |path| {
        safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
            SafeTensorError::IoError(error) => error,
            error => io::Error::other(error),
        })
    })
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
