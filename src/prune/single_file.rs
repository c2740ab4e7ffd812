//! A whole model written as one file in the original layout: U-Net, and the autoencoder and text encoders that
//! lie beside it.

use std::path::Path;

use safetensors::Dtype;

use super::{ExportError, directory};
use crate::base::files;
use crate::model::clip::TextConfig;
use crate::model::original::{
    Draft, Pair, TextPlace, UNET, V_PREDICTION, VAE, text_names, text_places, vae_names,
};
use crate::model::unet::Assembly;
use crate::model::vae::VaeConfig;
use crate::model::weights::{self, Weights, WeightsError};
use crate::model::{ModelDirectory, Part};

/// Writes the file and says which parts came along.
pub(super) fn write(
    model: &ModelDirectory,
    assembly: &Assembly,
    dtype: Option<Dtype>,
    path: &Path,
) -> Result<Vec<Part>, ExportError> {
    let unet = model.unet_weights()?;
    let mut parts = Vec::new();
    for place in text_places(assembly.config()).iter().filter(|place| model.has(place.part)) {
        parts.push((place.part, place.prefix, text(model, place)?));
    }
    if model.has(Part::Vae) {
        parts.push((Part::Vae, VAE, vae(model)?));
    }
    let mut tensors: Vec<(String, Draft<'_>)> = Vec::new();
    let drafts: std::collections::BTreeMap<_, _> =
        directory::tensors(&unet, assembly, dtype)?.into_iter().collect();
    for pair in assembly.config().inventory().original_names() {
        tensors.push((format!("{UNET}{}", pair.original), drafts[&pair.parts[0]].clone()));
    }
    for (_, prefix, (weights, pairs)) in &parts {
        for pair in pairs {
            let draft = drafted(weights, pair)?;
            tensors
                .push((format!("{prefix}{}", pair.original), dtype.into_iter().fold(draft, Draft::in_dtype)));
        }
    }
    if assembly.config().text_time.is_some() && predicts_velocity(model) {
        tensors.push((V_PREDICTION.to_owned(), Draft::zeros(Dtype::F32, Vec::new())));
    }
    weights::write(path, tensors).map_err(ExportError::file(path))?;
    Ok(parts.iter().map(|(part, ..)| *part).collect())
}

/// A part's weights with their names in the file.
type Named = (Weights, Vec<Pair>);

fn text(model: &ModelDirectory, place: &TextPlace) -> Result<Named, ExportError> {
    let folder = model.folder(place.part)?;
    let path = folder.join("config.json");
    let config: TextConfig = files::read_json(&path).map_err(ExportError::file(&path))?;
    let weights = Weights::open(&folder)?;
    let prefix = !weights.contains("embeddings.token_embedding.weight");
    let projection = weights.contains("text_projection.weight");
    let layers = config.num_hidden_layers + usize::from(place.skip_last);
    Ok((weights, text_names(place.layout, layers, prefix, projection)))
}

fn vae(model: &ModelDirectory) -> Result<Named, ExportError> {
    let folder = model.folder(Part::Vae)?;
    let path = folder.join("config.json");
    let config: VaeConfig = files::read_json(&path).map_err(ExportError::file(&path))?;
    let weights = Weights::open(&folder)?;
    let older = weights.contains("decoder.mid_block.attentions.0.query.weight");
    Ok((weights, vae_names(&config, older)))
}

/// The tensor as the file is to have it. The last layer that SD 2.x does not read, and that diffusers therefore left
/// out, is zeros of the shape that the first has: it then changes nothing for a program that does read it.
fn drafted<'a>(weights: &'a Weights, pair: &Pair) -> Result<Draft<'a>, WeightsError> {
    let first = |name: &str| -> Option<String> {
        let (before, after) = name.split_once("encoder.layers.")?;
        Some(format!("{before}encoder.layers.0.{}", after.split_once('.')?.1))
    };
    let missing = pair.parts.iter().any(|name| !weights.contains(name));
    match pair.parts.iter().map(|name| first(name)).collect::<Option<Vec<_>>>() {
        Some(parts) if missing => {
            let like = Pair { parts, ..pair.clone() }.draft(|name| weights.view(name))?;
            Ok(Draft::zeros(like.stored_dtype(), like.dimensions().to_vec()))
        }
        _ => pair.draft(|name| weights.view(name)),
    }
}

fn predicts_velocity(model: &ModelDirectory) -> bool {
    model.scheduler_config().is_ok_and(|config| config["prediction_type"] == "v_prediction")
}
