//! The check of an artefact that a command is given by a path, such as a model of a run's folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::memo::Owner;
use super::store::is_no_data;
use super::{CacheError, Damage, Entry, Store};
use crate::base::{Digest, sealed};

/// A path inside an artefact of a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The cache.
    pub root: PathBuf,
    /// The digest of the artefact, which its folder is named by.
    pub digest: Digest,
    /// The path inside the artefact's folder.
    pub inside: PathBuf,
}

impl Place {
    /// Finds the artefact that a path lies in by its names alone: `ROOT/v1/artefacts/DIGEST/...`.
    pub fn of(path: &Path) -> Option<Self> {
        path.ancestors().find_map(|folder| {
            let name = folder.file_name()?.to_str()?;
            let digest: Digest = name.parse().ok().filter(|digest: &Digest| digest.to_string() == name)?;
            let artefacts = folder.parent().filter(|artefacts| artefacts.ends_with("v1/artefacts"))?;
            let root = artefacts.ancestors().nth(2)?.to_owned();
            Some(Self { root, digest, inside: path.strip_prefix(folder).ok()?.to_owned() })
        })
    }
}

impl Store {
    /// What is wrong with the artefact of this digest. Only files that changed since they were last hashed are read.
    pub fn check(&self, digest: &Digest) -> Result<Option<Damage>, CacheError> {
        let folder = self.artefact_folder(digest);
        let found = match self.memo.tree(&folder, Owner::Cache) {
            Err(error) if is_no_data(&error) => None,
            found => Some(found.map_err(CacheError::of(&folder))?.digest()),
        };
        self.save_digests();
        if found == Some(*digest) {
            return Ok(None);
        }
        // The digest of the folder does not tell which file differs; an entry does.
        let damage = self.entry_of(digest)?.map(|entry| self.damage(&entry)).transpose()?.flatten();
        Ok(Some(damage.unwrap_or(Damage { path: folder, expected: Some(*digest), found })))
    }

    /// A sound entry whose artefact has this digest.
    pub(super) fn entry_of(&self, digest: &Digest) -> Result<Option<Entry>, CacheError> {
        let folder = self.entries_folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(CacheError::of(&folder))?,
        };
        let sound = entries.flatten().filter_map(|file| sealed::read::<Entry>(&file.path()).ok());
        Ok(sound.into_iter().find(|entry| entry.digest == *digest && entry.is_sound(&entry.key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artefact_is_found_from_any_path_inside_it() {
        let digest = Digest::of(b"files");
        let folder = Path::new("/c/v1/artefacts").join(digest.to_string());
        let place = |inside: &str| Place { root: "/c".into(), digest, inside: inside.into() };
        assert_eq!(Place::of(&folder), Some(place("")));
        assert_eq!(Place::of(&folder.join("unet/config.json")), Some(place("unet/config.json")));
        for other in ["/c/v1/artefacts", "/c/v1/artefacts/short/unet", "/models/nano"] {
            assert_eq!(Place::of(Path::new(other)), None, "{other}");
        }
        assert_eq!(Place::of(&Path::new("/c/v1/entries").join(digest.to_string())), None);
    }
}
