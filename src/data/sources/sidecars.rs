//! Captions in text files beside their samples.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::captions::{Caption, MOST_BYTES, decode};
use super::walk::Entry;

/// The extensions of caption files; the first that exists counts.
const EXTENSIONS: [&str; 2] = ["txt", "caption"];

/// The caption files below a folder.
pub(super) struct Sidecars<'a>(HashMap<(&'a str, &'a str, &'a str), &'a Path>);

impl<'a> Sidecars<'a> {
    pub(super) fn of(entries: &'a [Entry]) -> Self {
        let captions = entries.iter().filter(|entry| EXTENSIONS.contains(&entry.extension.as_str()));
        let place = |entry: &'a Entry| {
            ((entry.folder.as_str(), entry.stem.as_str(), entry.extension.as_str()), entry.path.as_path())
        };
        Self(captions.map(place).collect())
    }

    /// The caption of the sample with this stem.
    pub(super) fn find(&self, folder: &str, stem: &str) -> Caption {
        for extension in EXTENSIONS {
            if let Some(path) = self.0.get(&(folder, stem, extension)) {
                let caption = read(path)?;
                if !caption.is_empty() {
                    return Ok(caption);
                }
            }
        }
        Ok(String::new())
    }
}

fn read(path: &Path) -> Caption {
    let named = |error: String| format!("its caption {}: {error}", file_name(path));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| named(error.to_string()))?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| named(error.to_string()))?;
    decode(&bytes).map_err(named)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(PathBuf::from).unwrap_or_default().display().to_string()
}
