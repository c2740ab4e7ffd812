//! Writes a whole model as one file in the original layout: the U-Net, and the autoencoder and text encoders beside it.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, View};
use serde_json::Value;

use crate::base::FileError;
use crate::model::checkpoint::{TextPlace, UNET, V_PREDICTION, VAE, ZERO_SNR, text_places};
use crate::model::clip::text_names;
use crate::model::files::original::{Draft, Pair};
use crate::model::files::weights::{self, Weights, WeightsError};
use crate::model::unet::Assembly;
use crate::model::vae::{VaeConfig, vae_names};
use crate::model::{ModelDirectory, Part};
use crate::prune::directory;
use crate::prune::write_error::WriteError;

/// Writes the file and returns the other parts that it contains.
pub(super) fn write(
    model: &ModelDirectory,
    assembly: &Assembly,
    dtype: Option<Dtype>,
    path: &Path,
) -> Result<Vec<Part>, WriteError> {
    let unet = model.unet_weights()?;
    let mut parts = Vec::new();
    for place in text_places(assembly.config()).iter().filter(|place| model.has(place.part)) {
        parts.push((place.part, place.prefix, text(model, place)?));
    }
    if model.has(Part::Vae) {
        parts.extend(vae(model)?.map(|named| (Part::Vae, VAE, named)));
    }
    let mut tensors: Vec<(String, Draft<'_>)> = Vec::new();
    let drafts: BTreeMap<_, _> = directory::tensors(&unet, assembly, dtype)?.into_iter().collect();
    for pair in assembly.config().inventory().original_names() {
        tensors.push((format!("{UNET}{}", pair.original), drafts[&pair.parts[0]].clone()));
    }
    for (_, prefix, named) in &parts {
        for pair in &named.pairs {
            let draft = named.draft(pair)?;
            tensors
                .push((format!("{prefix}{}", pair.original), dtype.into_iter().fold(draft, Draft::in_dtype)));
        }
    }
    // Only their names matter. Other programs look for them in files of SDXL; `load` does in all.
    let marks = marks(model).into_iter();
    tensors.extend(marks.map(|mark| (mark.to_owned(), Draft::zeros(Dtype::F32, Vec::new()))));
    weights::write(path, tensors).map_err(FileError::at(path))?;
    Ok(parts.iter().map(|(part, ..)| *part).collect())
}

/// A part with the names of its tensors in the file.
struct Named {
    weights: Weights,
    pairs: Vec<Pair>,
    /// A text layer that checkpoints contain but nothing reads, so that diffusers leaves it out.
    unread_layer: Option<usize>,
}

fn text(model: &ModelDirectory, place: &TextPlace) -> Result<Named, WriteError> {
    let folder = model.folder(place.part)?;
    let config = model.text_config(place.part)?;
    let weights = Weights::open(&folder)?;
    let prefix = !weights.contains("embeddings.token_embedding.weight");
    let layer = |index: usize| format!("encoder.layers.{index}.layer_norm1.weight");
    let has = |index: usize| {
        weights.contains(&layer(index)) || weights.contains(&format!("text_model.{}", layer(index)))
    };
    let layers = config.num_hidden_layers;
    if let Some(missing) = layers.checked_sub(1).filter(|last| !has(*last)) {
        return Err(WeightsError::Missing { path: folder, name: layer(missing) }.into());
    }
    let unread_layer = (place.skip_last_of == Some(layers + 1) && !has(layers)).then_some(layers);
    let layers = layers + usize::from(unread_layer.is_some());
    let pairs = text_names(place.layout, layers, prefix, weights.contains("text_projection.weight"));
    Ok(Named { weights, pairs, unread_layer })
}

/// The autoencoder, if it is of the class that the layout has names for.
fn vae(model: &ModelDirectory) -> Result<Option<Named>, WriteError> {
    let VaeConfig::Kl(config) = model.vae_config()? else { return Ok(None) };
    let weights = Weights::open(&model.folder(Part::Vae)?)?;
    let older = weights.contains("decoder.mid_block.attentions.0.query.weight");
    Ok(Some(Named { weights, pairs: vae_names(&config, older), unread_layer: None }))
}

impl Named {
    /// The tensor as written to the file. The unread layer becomes zeros of the first layer's shape, so that it changes
    /// nothing for a program that does read it.
    fn draft(&self, pair: &Pair) -> Result<Draft<'_>, WeightsError> {
        let first = |name: &String| {
            let (before, after) = name.split_once("encoder.layers.")?;
            let (layer, inside) = after.split_once('.')?;
            let unread = self.unread_layer.is_some_and(|unread| layer == unread.to_string());
            unread.then(|| format!("{before}encoder.layers.0.{inside}"))
        };
        match pair.parts.iter().map(first).collect::<Option<Vec<_>>>() {
            Some(parts) => {
                let like = Pair { parts, ..pair.clone() }.draft(|name| self.weights.view(name))?;
                Ok(Draft::zeros(like.dtype(), like.shape().to_vec()))
            }
            None => pair.draft(|name| self.weights.view(name)),
        }
    }
}

/// The marks of what the model's scheduler says and a file cannot.
fn marks(model: &ModelDirectory) -> Vec<&'static str> {
    let config = model.scheduler_config().unwrap_or_default();
    let says = |key: &str, value: Value| config[key] == value;
    let marks = [
        (V_PREDICTION, says("prediction_type", "v_prediction".into())),
        (ZERO_SNR, says("rescale_betas_zero_snr", true.into())),
    ];
    marks.into_iter().filter(|(_, set)| *set).map(|(mark, _)| mark).collect()
}
