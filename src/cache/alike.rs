//! Artefacts that depend on the same as another one, but for one value.

use std::fs;
use std::io;

use super::{CacheError, Entry, Store};
use crate::base::{Manifest, sealed};

impl Store {
    /// The entries whose manifests equal `manifest` but for the value of `name`, each with that value. Their artefacts may
    /// be damaged.
    pub fn alike(&self, manifest: &Manifest, name: &str) -> Result<Vec<(String, Entry)>, CacheError> {
        let folder = self.entries_folder();
        let files = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(CacheError::of(&folder))?,
        };
        let rest = |manifest: &Manifest| manifest.part(|entry| entry != name);
        let wanted = rest(manifest);
        let mut found = Vec::new();
        for entry in files.flatten().filter_map(|file| sealed::read::<Entry>(&file.path()).ok()) {
            let value = entry.manifest.entries().find(|(entry, _)| *entry == name);
            let value = value.map(|(_, value)| value.to_owned());
            if let Some(value) =
                value.filter(|_| rest(&entry.manifest) == wanted && entry.is_sound(&entry.key))
            {
                found.push((value, entry));
            }
        }
        Ok(found)
    }
}
