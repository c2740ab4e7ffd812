//! A LoRA of the model before pruning, renamed for an export. Its keys name layers, and an export may number them anew:
//! a program would apply such a LoRA to other layers or leave parts of it out without an error.
//!
//! Tensors and their types stay as they are. Whatever belongs to a layer (`alpha`, DoRA's scale, LoHa, LoKr) goes with it,
//! and text encoders keep their names. A key that names nothing is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ExportError;
use super::layer_names::{LayerNames, Place};
use crate::base::FileError;
use crate::model::UNetConfig;
use crate::model::Weights;
use crate::model::files::weights;

/// Ends of keys whose second dimension is the width of the layer's input.
const DOWN: [&str; 4] = [".lora_A.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight"];
/// Where diffusers keeps peft's settings: JSON with names of layers in it.
const SETTINGS: &str = "lora_adapter_metadata";

/// A LoRA of the model before pruning, and what the renamed one is called.
#[derive(Clone, Debug)]
pub struct Lora<'a> {
    /// The file.
    pub from: &'a Path,
    /// The name of the renamed file beside the export.
    pub name: String,
}

/// What became of a LoRA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenamedLora {
    /// The renamed file.
    pub path: PathBuf,
    /// How many layers of the U-Net it changes.
    pub layers: usize,
    /// How many of them have another name than before.
    pub renamed: usize,
    /// Layers of the file that the U-Net has lost; they are left out.
    pub pruned: BTreeSet<String>,
}

/// A LoRA that fits, before it is written.
pub(super) struct Fitting<'a> {
    /// The name of the renamed file.
    name: &'a str,
    weights: Weights,
    metadata: BTreeMap<String, String>,
    /// Names as stored, by their new names.
    keys: BTreeMap<String, String>,
    /// Layers that stay, and whether they are renamed.
    kept: BTreeMap<String, bool>,
    pruned: BTreeSet<String>,
}

impl<'a> Fitting<'a> {
    /// Reads the names of a LoRA for an export with the U-Net `target`.
    pub(super) fn new(
        lora: &'a Lora<'_>,
        names: &LayerNames,
        target: &UNetConfig,
    ) -> Result<Self, ExportError> {
        let weights = Weights::open(lora.from)?;
        let shapes: BTreeMap<String, Vec<usize>> =
            target.inventory().tensors().map(|entry| (entry.name.clone(), entry.shape.clone())).collect();
        let (mut keys, mut kept, mut pruned) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for key in weights.names() {
            let new = match names.find(key) {
                Place::Unknown => {
                    return Err(ExportError::LoraLayer { path: lora.from.to_owned(), key: key.to_owned() });
                }
                Place::Text => key.to_owned(),
                Place::Layer { old, new: None } => {
                    pruned.insert(old);
                    continue;
                }
                Place::Layer { old, new: Some((new, layer)) } => {
                    if DOWN.iter().any(|end| key.ends_with(end)) {
                        check_width(lora.from, key, weights.shape(key)?.get(1), &layer, &shapes)?;
                    }
                    kept.insert(old, new != key);
                    new
                }
            };
            if let Some(other) = keys.insert(new, key.to_owned()) {
                let path = lora.from.to_owned();
                return Err(ExportError::LoraTwice { path, key: key.to_owned(), other });
            }
        }
        let mut metadata = weights.metadata();
        if let Some(settings) = metadata.get_mut(SETTINGS)
            && let Ok(mut parsed) = serde_json::from_str::<Map<String, Value>>(settings)
        {
            parsed.values_mut().for_each(|value| rename_settings(value, names));
            *settings = Value::Object(parsed).to_string();
        }
        Ok(Self { name: &lora.name, weights, metadata, keys, kept, pruned })
    }

    /// Writes the LoRA beside `place`, for an export that will be at `path`.
    pub(super) fn write(self, place: &Path, path: &Path) -> Result<RenamedLora, ExportError> {
        let file = place.with_file_name(self.name);
        let tensors = self.keys.iter().map(|(new, stored)| Ok((new, self.weights.view(stored)?)));
        let tensors = tensors.collect::<Result<Vec<_>, ExportError>>()?;
        weights::write_small(&file, tensors, &self.metadata).map_err(FileError::at(&file))?;
        Ok(RenamedLora {
            path: path.with_file_name(self.name),
            layers: self.kept.len(),
            renamed: self.kept.values().filter(|renamed| **renamed).count(),
            pruned: self.pruned,
        })
    }
}

/// A LoRA of another family can have the same names. `width` is that of the input that a tensor of the LoRA reads.
fn check_width(
    path: &Path,
    key: &str,
    width: Option<&usize>,
    layer: &str,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<(), ExportError> {
    let needed = shapes.get(&format!("{layer}.weight")).and_then(|shape| shape.get(1));
    match (width, needed) {
        (Some(&found), Some(&needed)) if found != needed => {
            Err(ExportError::LoraWidth { path: path.to_owned(), key: key.to_owned(), found, needed })
        }
        _ => Ok(()),
    }
}

/// Renames layers in a list of names or in the keys of an object; other words, such as `to_q`, mean layers everywhere.
fn rename_settings(value: &mut Value, names: &LayerNames) {
    match value {
        Value::Array(entries) => {
            entries.retain_mut(|entry| match entry.as_str().and_then(|name| names.layer(name)) {
                None => true,
                Some(None) => false,
                Some(Some(new)) => {
                    *entry = Value::from(new);
                    true
                }
            });
        }
        Value::Object(entries) => {
            let renamed = std::mem::take(entries).into_iter().filter_map(|(name, value)| {
                let new = match names.layer(&name) {
                    None => name,
                    Some(new) => new?.to_owned(),
                };
                Some((new, value))
            });
            *entries = renamed.collect();
        }
        _ => {}
    }
}
