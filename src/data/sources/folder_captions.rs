//! The captions of the samples below a folder, wherever they are written: in metadata files, or in text files beside them.

use std::collections::{BTreeSet, HashMap};

use super::captions::Caption;
use super::kohya::Keys;
use super::metadata;
use super::sidecars::Sidecars;
use super::walk::{Entry, inside, without_extension};
use crate::data::DataError;

/// All captions below a folder.
pub(super) struct FolderCaptions<'a> {
    /// Rows of metadata files, by the path of the file without extension: the extension, and the caption.
    rows: HashMap<String, Vec<(String, Caption)>>,
    keys: Keys,
    sidecars: Sidecars<'a>,
}

impl<'a> FolderCaptions<'a> {
    /// Reads the metadata files. `column` names their captions.
    pub(super) fn read(entries: &'a [Entry], column: Option<&str>) -> Result<Self, DataError> {
        let mut rows: HashMap<String, Vec<(String, Caption)>> = HashMap::new();
        for (name, caption) in metadata::read(entries, column)? {
            let (path, extension) = without_extension(&name);
            rows.entry(path.to_owned()).or_default().push((extension.to_lowercase(), caption));
        }
        Ok(Self { rows, keys: Keys::read(entries, column)?, sidecars: Sidecars::of(entries) })
    }

    /// The caption of the picture with this stem; empty if it has none. Without an extension, whatever it is: of cached
    /// latents, the picture may be gone. The error is the reason to skip the sample.
    pub(super) fn find(&self, folder: &str, stem: &str, extension: Option<&str>) -> Caption {
        let path = inside(folder, stem);
        let is_its = |(of, _): &&(String, Caption)| extension.is_none_or(|extension| of == extension);
        let row = self.rows.get(&path).and_then(|rows| rows.iter().rev().find(is_its));
        match row.map(|(_, caption)| caption).or_else(|| self.keys.find(&path)) {
            Some(caption) if caption.as_ref().is_ok_and(String::is_empty) => self.sidecars.find(folder, stem),
            Some(caption) => caption.clone(),
            None => self.sidecars.find(folder, stem),
        }
    }

    /// What metadata names and nobody finds.
    pub(super) fn lost(&self, entries: &[Entry]) -> BTreeSet<String> {
        if self.rows.is_empty() {
            return self.keys.lost(entries).map(str::to_owned).collect();
        }
        let names: BTreeSet<(String, &str)> = entries
            .iter()
            .map(|entry| (inside(&entry.folder, &entry.stem), entry.extension.as_str()))
            .collect();
        let rows = self.rows.iter().flat_map(|(path, rows)| rows.iter().map(move |(of, _)| (path, of)));
        let lost = rows.filter(|(path, of)| !names.contains(&((*path).clone(), of.as_str())));
        lost.map(|(path, of)| if of.is_empty() { path.clone() } else { format!("{path}.{of}") })
            .chain(self.keys.lost(entries).map(str::to_owned))
            .collect()
    }
}
