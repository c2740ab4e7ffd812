//! Where the layers of a model went in an export that numbers them anew: for a LoRA of the model, which names layers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Container;
use crate::base::files;
use crate::model::unet::{Assembly, Origin, UNetConfig};

/// The version of the file that this program writes.
const FORMAT: u32 = 1;
/// Its name beside a diffusers directory's parts.
pub(super) const FILE: &str = "lora-remap.json";

/// Layers by their old names, with the new name, or none where the layer is gone. What is not listed keeps its name.
/// kohya's names are these with `lora_unet_` before them and `_` for each dot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remap {
    /// Version of the file's layout.
    pub format: u32,
    /// By the names of diffusers: `down_blocks.2.attentions.0.transformer_blocks.7.attn1.to_q`.
    pub diffusers: BTreeMap<String, Option<String>>,
    /// Of a single file, by the names of the original layout: `input_blocks.7.1.transformer_blocks.7.attn1.to_q`.
    pub original: BTreeMap<String, Option<String>>,
}

impl Remap {
    /// What became of the layers of `whole`, the U-Net before anything was removed. A diffusers directory has no names
    /// in the original layout.
    pub fn new(whole: &UNetConfig, assembly: &Assembly, container: Container) -> Self {
        let mut places = BTreeMap::new();
        for (entry, origin) in assembly.tensors() {
            if let Origin::Kept(source) = origin {
                places.insert(source, entry.name);
            }
        }
        let diffusers = |config: &UNetConfig| -> BTreeMap<String, String> {
            config.inventory().tensors().map(|entry| (entry.name.clone(), entry.name.clone())).collect()
        };
        let original = |config: &UNetConfig| -> BTreeMap<String, String> {
            let pairs = config.inventory().original_names().into_iter();
            pairs.filter_map(|mut pair| Some((pair.parts.pop()?, pair.original))).collect()
        };
        let moved = |names: &dyn Fn(&UNetConfig) -> BTreeMap<String, String>| {
            let (old, new) = (names(whole), names(assembly.config()));
            let pairs = old.into_iter().map(|(source, old)| {
                (layer(&old), places.get(&source).and_then(|target| new.get(target)).map(|new| layer(new)))
            });
            pairs.filter(|(old, new)| new.as_ref() != Some(old)).collect()
        };
        Self {
            format: FORMAT,
            diffusers: moved(&diffusers),
            original: match container {
                Container::SingleFile => moved(&original),
                Container::Directory | Container::Code => BTreeMap::new(),
            },
        }
    }

    /// Whether a layer has another name now, as opposed to being gone.
    pub fn renames(&self) -> bool {
        self.diffusers.values().chain(self.original.values()).any(Option::is_some)
    }

    /// Writes the table.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::write_json(path, self)
    }
}

/// A tensor's layer.
fn layer(tensor: &str) -> String {
    tensor.rsplit_once('.').map_or(tensor, |(layer, _)| layer).to_owned()
}
