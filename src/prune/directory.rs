//! Writes a U-Net as a diffusers directory, with the other parts of its model.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::container::Container;
use super::write_error::WriteError;
use crate::base::copies::{self, Transfer};
use crate::base::{FileError, UnitId, files, python_json};
use crate::model::files::original::Draft;
use crate::model::files::weights::{self, Weights, WeightsError};
use crate::model::unet::{Assembly, CLASS, Origin};
use crate::model::{ModelDirectory, Part, TensorEntry};

/// The Python module that builds a pruned network in diffusers.
const LOADER: &str = include_str!("pruned_unet.py");
const MODULE: &str = "pruned_unet";
const PRUNED_CLASS: &str = "PrunedUNet2DConditionModel";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const INDEX: &str = "model_index.json";

/// The tensors of a U-Net assembled from those of `weights`.
pub(super) fn tensors<'a>(
    weights: &'a Weights,
    assembly: &Assembly,
    dtype: Option<Dtype>,
) -> Result<Vec<(String, Draft<'a>)>, WriteError> {
    let tensors = assembly.tensors();
    let kept = tensors.iter().filter_map(|(entry, origin)| match origin {
        Origin::Kept(name) => Some(TensorEntry { name: name.clone(), shape: entry.shape.clone() }),
        Origin::Zeros => None,
    });
    let kept: Vec<_> = kept.collect();
    weights.check(&kept)?;
    let stored = match kept.first() {
        Some(entry) => weights.view(&entry.name)?.dtype(),
        None => Dtype::F32,
    };
    let draft = |(entry, origin): (TensorEntry, Origin)| {
        let draft = match origin {
            Origin::Kept(name) => Draft::of(weights.view(&name)?),
            Origin::Zeros => Draft::zeros(stored, entry.shape),
        };
        Ok((entry.name, dtype.into_iter().fold(draft, Draft::in_dtype)))
    };
    tensors.into_iter().map(draft).collect()
}

/// Writes the U-Net of `assembly`, made from that of `model`, into the folder `output`; the other parts are transferred. The
/// folder of a bare U-Net gives the folder of a bare U-Net.
pub(super) fn write(
    model: &ModelDirectory,
    assembly: &Assembly,
    container: Container,
    dtype: Option<Dtype>,
    transfer: Transfer,
    output: &Path,
) -> Result<(), WriteError> {
    let source = model.folder(Part::UNet)?;
    let target = match source.strip_prefix(model.path()) {
        Ok(inside) => output.join(inside),
        Err(_) => output.to_owned(),
    };
    std::fs::create_dir_all(&target).map_err(FileError::at(&target))?;
    let weights = model.unet_weights()?;
    let file = target.join(WEIGHTS);
    weights::write(&file, tensors(&weights, assembly, dtype)?).map_err(FileError::at(&file))?;
    let (library, class) = match container {
        Container::Code => (MODULE, PRUNED_CLASS),
        _ => ("diffusers", CLASS),
    };
    write_config(&source, assembly, container, class, &target)?;
    if container == Container::Code {
        write_loader(&target)?;
    }
    if target != output {
        let index = model.path().join(INDEX);
        if index.exists() {
            edit(&index, &output.join(INDEX), |keys| {
                keys.insert("unet".into(), json!([library, class]));
            })?;
        }
        transfer_other_parts(model.path(), output, transfer).map_err(FileError::at(model.path()))?;
        for part in [Part::Vae, Part::TextEncoder, Part::TextEncoder2] {
            if let Some(dtype) = dtype.filter(|_| model.has(part)) {
                convert(&model.folder(part)?, dtype, &output.join(part.folder()))?;
            }
        }
    }
    Ok(())
}

/// Adds linear maps in place of removed units to the configuration of a pruned U-Net that was copied from `model` to
/// `output`; their weights are written by the caller. Without any, nothing changes.
pub fn write_maps(model: &ModelDirectory, units: &BTreeSet<UnitId>, output: &Path) -> Result<(), WriteError> {
    if units.is_empty() {
        return Ok(());
    }
    let folder = ModelDirectory::open(output)?.folder(Part::UNet)?;
    let source = model.folder(Part::UNet)?;
    let config = model.unet_config()?.with_maps(units);
    let config = config.expect("BUG: a linear map has no place in the U-Net that it was solved for");
    let itself = Assembly::new(&config, config.clone(), None);
    let assembly = itself.expect("BUG: a U-Net has a place for its own units");
    write_config(&source, &assembly, Container::Code, PRUNED_CLASS, &folder)?;
    write_loader(&folder)
}

/// Writes the Python module into the folder of a U-Net.
fn write_loader(folder: &Path) -> Result<(), WriteError> {
    let loader = folder.join(format!("{MODULE}.py"));
    Ok(files::write_atomic(&loader, LOADER.as_bytes()).map_err(FileError::at(&loader))?)
}

/// Writes the U-Net's configuration, with the shape of `assembly` in place of the source's.
fn write_config(
    source: &Path,
    assembly: &Assembly,
    container: Container,
    class: &str,
    target: &Path,
) -> Result<(), WriteError> {
    edit(&source.join("config.json"), &target.join("config.json"), |keys| {
        let shape = assembly.config().to_json();
        for key in ["reverse_transformer_layers_per_block", "auto_map", "removed_units", "linear_units"] {
            keys.remove(key);
        }
        for (key, value) in shape.as_object().into_iter().flatten() {
            keys.insert(key.clone(), value.clone());
        }
        keys.insert("_class_name".into(), json!(class));
        if container == Container::Code {
            keys.insert("auto_map".into(), json!({ "AutoModel": format!("{MODULE}.{PRUNED_CLASS}") }));
        }
    })
}

/// Transfers every part except the U-Net, and the licence. Checkpoints beside the parts, as in many repositories of the hub,
/// contain the whole U-Net and are left out; so is the output itself, if it lies in the same folder.
fn transfer_other_parts(from: &Path, to: &Path, transfer: Transfer) -> io::Result<()> {
    let output = to.canonicalize()?;
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        let (text, source, target) = (name.to_string_lossy(), from.join(&name), to.join(&name));
        if source.is_dir() && text != "unet" && !text.starts_with('.') {
            if !output.starts_with(source.canonicalize()?) {
                copies::transfer_tree(&source, &target, transfer)?;
            }
        } else if source.is_file() && text.to_uppercase().starts_with("LICENSE") {
            transfer(&source, &target)?;
        }
    }
    Ok(())
}

/// Replaces the transferred weights of a part in the folder `to` by those of the folder `from` in another type.
fn convert(from: &Path, dtype: Dtype, to: &Path) -> Result<(), WriteError> {
    let weights = Weights::open(from)?;
    weights::remove_from(to).map_err(FileError::at(to))?;
    let stem = if to.ends_with(Part::Vae.folder()) { "diffusion_pytorch_model" } else { "model" };
    let path = to.join(format!("{stem}.safetensors"));
    let draft = |name| Ok((name, Draft::of(weights.view(name)?).in_dtype(dtype)));
    let tensors = weights.names().map(draft).collect::<Result<Vec<_>, WeightsError>>()?;
    weights::write(&path, tensors).map_err(FileError::at(&path))?;
    Ok(())
}

/// Reads JSON, changes it, and writes it elsewhere.
fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), WriteError> {
    let text = std::fs::read(from).map_err(FileError::at(from))?;
    let text = python_json::edit(&text, change).map_err(|error| FileError::at(from)(error.into()))?;
    files::write_atomic(to, &text).map_err(FileError::at(to))?;
    Ok(())
}
