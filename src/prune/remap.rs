//! A table of renamed layers for LoRAs, which refer to layers by name, when an export renumbers them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::container::Container;
use crate::base::files;
use crate::model::unet::{Assembly, Origin, UNetConfig};

/// The version of the file that this program writes.
const FORMAT: u32 = 1;
/// Its name in a diffusers directory.
pub(super) const FILE: &str = "lora-remap.json";

pub(super) type Moves = BTreeMap<String, Option<String>>;

/// Old names of layers with the new name, or none if the layer was removed. Layers that are not listed keep their names.
/// kohya's names are these with `lora_unet_` before them and `_` for each dot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remap {
    /// Version of the file's layout.
    pub format: u32,
    /// In the naming of diffusers: `down_blocks.2.attentions.0.transformer_blocks.7.attn1.to_q`.
    pub diffusers: Moves,
    /// In the naming of the original layout: `input_blocks.7.1.transformer_blocks.7.attn1.to_q`.
    pub original: Moves,
}

impl Remap {
    /// The new names of the layers of `source` before any of its units were removed, in a U-Net that `assembly` made of it and
    /// that is written as `container`.
    pub fn new(source: &UNetConfig, assembly: &Assembly, container: Container) -> Self {
        let mut places = BTreeMap::new();
        for (entry, origin) in assembly.tensors() {
            if let Origin::Kept(source) = origin {
                places.insert(source, entry.name);
            }
        }
        let moved = |old: BTreeMap<String, String>, new: BTreeMap<String, String>| {
            let pairs = old.into_iter().map(|(source, old)| {
                (layer(&old), places.get(&source).and_then(|target| new.get(target)).map(|new| layer(new)))
            });
            pairs.filter(|(old, new)| new.as_ref() != Some(old)).collect()
        };
        let diffusers = |config: &UNetConfig| -> BTreeMap<String, String> {
            config.inventory().tensors().map(|entry| (entry.name.clone(), entry.name.clone())).collect()
        };
        let (whole, target) = (whole(source), assembly.config());
        Self {
            format: FORMAT,
            diffusers: moved(diffusers(&whole), diffusers(target)),
            original: moved(originals(&whole), originals(&numbered(target, container))),
        }
    }

    /// The table in a model's folder, if its layers were renamed before.
    pub fn of_model(folder: &Path) -> io::Result<Option<Self>> {
        match files::read_json(&folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// This table applied after `earlier`: from the names before `earlier` to those after this one.
    pub fn after(self, earlier: Self) -> Self {
        Self {
            format: FORMAT,
            diffusers: chain(earlier.diffusers, self.diffusers),
            original: chain(earlier.original, self.original),
        }
    }

    /// Whether any layer was renamed, as opposed to removed.
    pub fn renames(&self) -> bool {
        self.diffusers.values().chain(self.original.values()).any(Option::is_some)
    }

    /// Writes the table.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::write_json(path, self)
    }
}

/// The U-Net before its units were removed.
fn whole(config: &UNetConfig) -> UNetConfig {
    UNetConfig { removed_units: BTreeSet::new(), ..config.clone() }
}

/// The U-Net whose numbers a program uses for the original names. A single file numbers its modules without gaps; the
/// modules of a folder have fixed places, also where units were removed.
pub(super) fn numbered(target: &UNetConfig, container: Container) -> UNetConfig {
    match container {
        Container::SingleFile => target.clone(),
        Container::Directory | Container::Code => whole(target),
    }
}

/// The original names of all tensors, by their names in diffusers.
fn originals(config: &UNetConfig) -> BTreeMap<String, String> {
    let pairs = config.inventory().original_names().into_iter();
    pairs.filter_map(|mut pair| Some((pair.parts.pop()?, pair.original))).collect()
}

/// `later` applied to the result of `earlier`.
fn chain(earlier: Moves, later: Moves) -> Moves {
    let taken: BTreeSet<&String> = earlier.values().flatten().collect();
    // A name that the earlier table reassigned means another layer now.
    let untouched = later.iter().filter(|(name, _)| !earlier.contains_key(*name) && !taken.contains(name));
    let mut chained: Moves = untouched.map(|(name, new)| (name.clone(), new.clone())).collect();
    for (old, new) in &earlier {
        let new = new.as_ref().and_then(|new| later.get(new).cloned().unwrap_or(Some(new.clone())));
        if new.as_ref() != Some(old) {
            chained.insert(old.clone(), new);
        }
    }
    chained
}

/// A tensor's layer.
pub(super) fn layer(tensor: &str) -> String {
    tensor.rsplit_once('.').map_or(tensor, |(layer, _)| layer).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_one_another() {
        let moves = |pairs: &[(&str, Option<&str>)]| -> Moves {
            pairs.iter().map(|(old, new)| ((*old).to_owned(), new.map(str::to_owned))).collect()
        };
        // First 1 is removed and 2 becomes 1; then that becomes 0, 3 is removed, and 4 becomes 3.
        let earlier = moves(&[("1", None), ("2", Some("1"))]);
        let later = moves(&[("1", Some("0")), ("3", None), ("4", Some("3"))]);
        let both = [("1", None), ("2", Some("0")), ("3", None), ("4", Some("3"))];
        assert_eq!(chain(earlier.clone(), later), moves(&both));
        assert_eq!(chain(earlier.clone(), Moves::new()), earlier);
        let back = moves(&[("1", Some("2"))]);
        assert_eq!(
            chain(earlier, back),
            moves(&[("1", None)]),
            "a layer with its old name again is not listed"
        );
    }
}
