//! What a remote knows of a key: the entry, and the hidden files, of which an entry has only the names.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::base::{Digest, sealed};
use crate::cache::{Entry, Tree, TreeFile};

/// The entry of a key with the list of its hidden files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::cache) struct Record {
    pub(in crate::cache) entry: Entry,
    hidden: Tree,
}

/// The folder of records.
pub(in crate::cache) fn entries() -> &'static str {
    "v1/entries"
}

/// The name of the record of a key.
pub(super) fn entry_name(key: &Digest) -> String {
    format!("{}/{key}.json", entries())
}

/// The key of a record, by its name in its folder.
pub(in crate::cache) fn key_of(name: &str) -> Option<Digest> {
    name.strip_suffix(".json")?.parse().ok()
}

/// The name of a file of an artefact.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("v1/blobs/{digest}")
}

impl Record {
    pub(in crate::cache) fn new(entry: Entry, hidden: Tree) -> Self {
        Self { entry, hidden }
    }

    /// Reads the record of a key. What is wrong with it is said in words that go on after `its entry`.
    pub(super) fn read(bytes: &[u8], key: &Digest) -> Result<Self, String> {
        let record: Self = sealed::from_slice(bytes).map_err(|_| "is damaged".to_owned())?;
        if !record.entry.is_sound(key) {
            return Err("is that of another key".to_owned());
        }
        let names = record.hidden.files().iter().map(|file| &file.path);
        let is_complete = names.eq(record.entry.hidden.iter().collect::<BTreeSet<_>>());
        match is_complete && are_places(record.files().map(|file| file.path.as_str()).collect()) {
            true => Ok(record),
            false => Err("names files that no artefact has".to_owned()),
        }
    }

    /// All files, the hidden ones last.
    pub(super) fn files(&self) -> impl Iterator<Item = &TreeFile> {
        self.entry.files.files().iter().chain(self.hidden.files())
    }

    /// The size of all files.
    pub(in crate::cache) fn bytes(&self) -> u64 {
        self.files().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

/// Whether these are different places inside a folder, and none of them is a folder of another one.
fn are_places(paths: Vec<&str>) -> bool {
    let all: BTreeSet<&Path> = paths.iter().map(Path::new).collect();
    let is_inside = |path: &&str| {
        // The text of its parts again, so that `a//b` and `a/./b` are no other names of `a/b`.
        let parts = Path::new(path).components().map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let parts: Option<Vec<&str>> = parts.collect();
        !path.contains(['\\', '\0'])
            && parts.is_some_and(|parts| !parts.is_empty() && parts.join("/") == **path)
    };
    let is_alone = |path: &&str| Path::new(path).ancestors().skip(1).all(|above| !all.contains(above));
    all.len() == paths.len() && paths.iter().all(|path| is_inside(path) && is_alone(path))
}

#[cfg(test)]
mod tests {
    use super::are_places;

    #[test]
    fn only_places_inside_a_folder_are_taken() {
        assert!(are_places(vec!["unet/config.json", "model_index.json", ".state", "unet/a b.safetensors"]));
        for paths in [
            vec!["../outside"],
            vec!["/etc/passwd"],
            vec!["unet/../../outside"],
            vec![""],
            vec!["."],
            vec!["a//b"],
            vec!["a/./b"],
            vec!["a/"],
            vec!["a\\b"],
            vec!["a", "a/b"],
            vec!["a", "a"],
        ] {
            assert!(!are_places(paths.clone()), "{paths:?}");
        }
    }
}
