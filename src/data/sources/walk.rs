//! The files below a folder. Hidden files belong to tools and are left alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::data::sample::LeftOut;

/// Pictures by their extensions. Those that cannot be decoded are samples too, so that they are named.
const PICTURES: [&str; 13] =
    ["png", "jpg", "jpeg", "webp", "avif", "heic", "heif", "jxl", "gif", "bmp", "tif", "tiff", "jp2"];

/// A file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its path below the root, with `/`.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The part of its name before the last `/`, empty at the root.
    pub(super) folder: String,
    /// Its file name up to the last dot.
    pub(super) stem: String,
    /// The rest in lower case.
    pub(super) extension: String,
}

impl Entry {
    pub(super) fn is_picture(&self) -> bool {
        is_picture(&self.extension)
    }
}

/// Whether files with this extension, in lower case, are pictures.
pub(super) fn is_picture(extension: &str) -> bool {
    PICTURES.contains(&extension)
}

/// The names of the pictures below a folder, in order.
pub fn pictures(root: &Path) -> Result<Vec<String>, DataError> {
    let (entries, _) = walk(root)?;
    Ok(entries.into_iter().filter(Entry::is_picture).map(|entry| entry.name).collect())
}

/// The name of what lies in a folder below the root, which is the empty name.
pub(super) fn inside(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A path before its last dot, and the rest; a dot in the name of a folder does not count.
pub(super) fn without_extension(path: &str) -> (&str, &str) {
    path.rsplit_once('.').filter(|(_, extension)| !extension.contains('/')).unwrap_or((path, ""))
}

/// The part of a path after its last `/`.
pub(super) fn last_part(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// The files in the order of their names, and the pictures whose names cannot be written. Links are followed.
pub(super) fn walk(root: &Path) -> Result<(Vec<Entry>, Vec<LeftOut>), DataError> {
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((path, name)) = folders.pop() {
        // A link to a folder above would lead in a circle.
        if !seen.insert(std::fs::canonicalize(&path).map_err(DataError::file(&path))?) {
            continue;
        }
        for entry in std::fs::read_dir(&path).map_err(DataError::file(&path))? {
            let entry = entry.map_err(DataError::file(&path))?;
            let path = entry.path();
            let file_name = path.file_name().unwrap_or_default();
            if file_name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let shown = file_name.to_string_lossy();
            let inner = inside(&name, &shown);
            let (stem, extension) = without_extension(&shown);
            let extension = extension.to_lowercase();
            let mut leave = |reason: String| {
                if is_picture(&extension) {
                    left_out.push(LeftOut { name: inner.clone(), reason });
                }
            };
            // The folder knows what is a file; only a link must be asked what it leads to.
            let found = match entry.file_type() {
                Ok(found) if !found.is_symlink() => Ok(found),
                _ => std::fs::metadata(&path).map(|metadata| metadata.file_type()),
            };
            match found {
                Err(error) => leave(error.to_string()),
                Ok(_) if file_name.to_str().is_none() => leave("its name is not UTF-8".to_owned()),
                Ok(found) if found.is_dir() => folders.push((path, inner)),
                Ok(found) if found.is_file() => entries.push(Entry {
                    stem: stem.to_owned(),
                    folder: name.clone(),
                    name: inner,
                    path,
                    extension,
                }),
                Ok(_) => leave("it is neither a file nor a folder".to_owned()),
            }
        }
    }
    entries.sort_by(|one, two| one.name.cmp(&two.name));
    left_out.sort_by(|one, two| one.name.cmp(&two.name));
    Ok((entries, left_out))
}
