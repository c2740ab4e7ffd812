//! The layers that the keys of a LoRA file name, and what an export calls them.
//!
//! Three ways to write a layer's path are in use: with dots (peft and diffusers), with `_` for each dot (kohya), and both of
//! them with the names of the original layout instead of those of diffusers. All come from the U-Net's own tensors.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::unet::UNetConfig;
use crate::prune::container::Container;
use crate::prune::remap::{Moves, Remap, layer, numbered};

/// What kohya's trainer writes before a layer of the U-Net.
const KOHYA: &str = "lora_unet_";
/// What others write before a layer of the U-Net.
const DOTTED: [&str; 5] = ["unet.", "base_model.model.", "model.diffusion_model.", "diffusion_model.", ""];
/// Beginnings of what belongs to the text encoders.
const TEXT: [&str; 5] = ["lora_te_", "lora_te1_", "lora_te2_", "text_encoder", "bundle_emb."];
/// diffusers' first LoRAs name the attention and then `processor.to_q_lora`.
const PROCESSOR: &str = ".processor.";
/// Where the original layout numbers its blocks.
const BLOCKS: [&str; 3] = ["input_blocks.", "middle_block.", "output_blocks."];

/// What a key of a LoRA file names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Something of a text encoder.
    Text,
    /// A layer of the U-Net, as the file spells it.
    Layer {
        /// The layer.
        old: String,
        /// The key in the export, and the layer's name in diffusers; none if the layer was removed.
        new: Option<(String, String)>,
    },
    /// No layer of this U-Net.
    Unknown,
}

/// What has become of a layer: its name in the export in the same spelling, and in diffusers; none if it was removed.
type Fate = Option<(String, String)>;

/// The names of an export's layers by the names that they had before.
pub(super) struct LayerNames {
    /// Layers, with dots.
    layers: BTreeMap<String, Fate>,
    /// Modules that contain layers, with dots.
    modules: BTreeMap<String, Fate>,
    /// Layers, with `_` for each dot.
    joined: BTreeMap<String, Fate>,
}

impl LayerNames {
    /// `table` leads to the U-Net `target`, which is written as `container`.
    pub(super) fn new(table: &Remap, target: &UNetConfig, container: Container) -> Self {
        let layers: BTreeSet<String> = target.inventory().tensors().map(|entry| layer(&entry.name)).collect();
        let mut fates: BTreeMap<String, Fate> = BTreeMap::new();
        let same = |name: &str| Some((name.to_owned(), name.to_owned()));
        for (old, new) in complete(&table.diffusers, layers.iter().map(String::as_str)) {
            fates.insert(old, new.as_deref().and_then(same));
        }
        let pairs = numbered(target, container).inventory().original_names();
        let by_original: BTreeMap<String, String> =
            pairs.iter().map(|pair| (layer(&pair.original), layer(&pair.parts[0]))).collect();
        for (old, new) in complete(&table.original, by_original.keys().map(String::as_str)) {
            let fate = new.and_then(|new| {
                let diffusers = by_original.get(&new).filter(|diffusers| layers.contains(*diffusers))?;
                // diffusers takes fixed places for granted when it translates the numbers of blocks.
                let translated =
                    container != Container::SingleFile && BLOCKS.iter().any(|block| new.starts_with(block));
                Some((if translated { diffusers.clone() } else { new }, diffusers.clone()))
            });
            fates.insert(old, fate);
        }
        let join = |name: &str| name.replace('.', "_");
        let joined = fates.iter().map(|(old, new)| {
            (join(old), new.as_ref().map(|(new, diffusers)| (join(new), diffusers.clone())))
        });
        Self { joined: joined.collect(), modules: modules(&fates), layers: fates }
    }

    /// What a key names.
    pub(super) fn find(&self, key: &str) -> Place {
        if TEXT.iter().any(|text| key.starts_with(text)) {
            return Place::Text;
        }
        let place = |prefix: &str, old: &str, fate: &Fate, rest: &str| {
            let key =
                |(new, diffusers): &(String, String)| (format!("{prefix}{new}{rest}"), diffusers.clone());
            Place::Layer { old: old.to_owned(), new: fate.as_ref().map(key) }
        };
        if let Some(name) = key.strip_prefix(KOHYA) {
            let end = name.find('.').unwrap_or(name.len());
            let found = self.joined.get_key_value(&name[..end]);
            return found.map_or(Place::Unknown, |(old, fate)| place(KOHYA, old, fate, &name[end..]));
        }
        for prefix in DOTTED {
            let Some(name) = key.strip_prefix(prefix) else { continue };
            if let Some((module, _)) = name.split_once(PROCESSOR)
                && let Some((old, fate)) = self.modules.get_key_value(module)
            {
                return place(prefix, old, fate, &name[module.len()..]);
            }
            let ends = name.match_indices('.').rev().map(|(end, _)| end);
            let found = ends.filter_map(|end| Some((end, self.layers.get_key_value(&name[..end])?))).next();
            if let Some((end, (old, fate))) = found {
                return place(prefix, old, fate, &name[end..]);
            }
        }
        Place::Unknown
    }

    /// The layer of this name in diffusers, as peft's own settings call it.
    pub(super) fn layer(&self, name: &str) -> Option<Option<&str>> {
        self.layers.get(name).map(|fate| fate.as_ref().map(|(new, _)| new.as_str()))
    }
}

/// The table with the layers that keep their names. A name that another layer has taken is not one of them.
fn complete<'a>(table: &Moves, target: impl Iterator<Item = &'a str>) -> Moves {
    let taken: BTreeSet<&str> = table.values().flatten().map(String::as_str).collect();
    let kept = target.filter(|name| !table.contains_key(*name) && !taken.contains(name));
    let mut complete: Moves = kept.map(|name| (name.to_owned(), Some(name.to_owned()))).collect();
    complete.extend(table.iter().map(|(old, new)| (old.clone(), new.clone())));
    complete
}

/// The modules that contain these layers. A module whose layers went to different places has no name of its own.
fn modules(layers: &BTreeMap<String, Fate>) -> BTreeMap<String, Fate> {
    let mut found: BTreeMap<String, Vec<Fate>> = BTreeMap::new();
    for (old, fate) in layers {
        let (mut old, mut fate) =
            (old.as_str(), fate.as_ref().map(|(new, diffusers)| (new.as_str(), diffusers.as_str())));
        while let Some((module, last)) = old.rsplit_once('.') {
            let inside =
                |new: &'_ str| -> Option<usize> { Some(new.strip_suffix(last)?.strip_suffix('.')?.len()) };
            fate = match fate {
                None => None,
                Some((new, diffusers)) => match (inside(new), inside(diffusers)) {
                    (Some(end), Some(other)) => Some((&new[..end], &diffusers[..other])),
                    _ => break,
                },
            };
            let owned = fate.map(|(new, diffusers)| (new.to_owned(), diffusers.to_owned()));
            found.entry(module.to_owned()).or_default().push(owned);
            old = module;
        }
    }
    let agreed = found.into_iter().filter_map(|(module, fates)| {
        let mut kept: Vec<_> = fates.into_iter().flatten().collect();
        kept.dedup();
        match kept.len() {
            0 => Some((module, None)),
            1 => Some((module, kept.pop())),
            _ => None,
        }
    });
    agreed.collect()
}
