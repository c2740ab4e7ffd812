//! A plan made real: a complete diffusers directory without the removed units.
//!
//! Kept tensors keep names, types and bytes. The U-Net's folder carries the few lines of Python by which
//! diffusers builds the pruned network at its true size; the other parts are links to the teacher's.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use serde_json::{Value, json};

use crate::base::files;
use crate::model::unet::PruneError;
use crate::model::weights::WeightsError;
use crate::model::{ModelDirectory, ModelError, Part};
use crate::select::Plan;

/// What diffusers runs to build the network.
const LOADER: &str = include_str!("pruned_unet.py");
const MODULE: &str = "pruned_unet";
const CLASS: &str = "PrunedUNet2DConditionModel";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const INDEX: &str = "model_index.json";

/// A plan that cannot be applied.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ApplyError {
    /// The teacher cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The plan names units that the teacher does not have.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Units(#[from] PruneError),
    /// The teacher's weights do not fit its configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// The pruned weights cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    #[diagnostic(code(prune::write))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(prune::file))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes `model` without the units of `plan` into the folder `output`. A teacher that is pruned already
/// loses more; a bare U-Net's folder gives a bare U-Net's folder.
pub fn apply(model: &ModelDirectory, plan: &Plan, output: &Path) -> Result<(), ApplyError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ApplyError::File { path, source }
    };
    let config = model.unet_config()?.prune(&plan.removed())?;
    let source = model.folder(Part::UNet)?;
    let target = match source.strip_prefix(model.path()) {
        Ok(inside) => output.join(inside),
        Err(_) => output.to_owned(),
    };
    std::fs::create_dir_all(&target).map_err(at(&target))?;

    let weights = model.unet_weights()?;
    let kept: Vec<_> = config.inventory().tensors().cloned().collect();
    weights.check(&kept)?;
    let views = kept.iter().map(|entry| Ok((&entry.name, weights.view(&entry.name)?)));
    let views: Vec<_> = views.collect::<Result<_, WeightsError>>()?;
    let file = target.join(WEIGHTS);
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &file)
        .map_err(|source| ApplyError::Write { path: file, source })?;

    edit(&source.join("config.json"), &target.join("config.json"), |keys| {
        keys["_class_name"] = json!(CLASS);
        keys["auto_map"] = json!({ "AutoModel": format!("{MODULE}.{CLASS}") });
        keys["removed_units"] = json!(config.removed_units);
    })?;
    let loader = target.join(format!("{MODULE}.py"));
    files::write_atomic(&loader, LOADER.as_bytes()).map_err(at(&loader))?;

    if target != output {
        let index = model.path().join(INDEX);
        if index.exists() {
            edit(&index, &output.join(INDEX), |keys| keys["unet"] = json!([MODULE, CLASS]))?;
        }
        link_other_parts(model.path(), output).map_err(at(model.path()))?;
    }
    plan.save(output).map_err(at(output))
}

/// Links every part but the U-Net, and the licence. Checkpoints that lie beside the parts, as in many
/// repositories of the hub, hold the whole U-Net and stay behind.
fn link_other_parts(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        let (text, source, target) = (name.to_string_lossy(), from.join(&name), to.join(&name));
        if source.is_dir() && text != "unet" && !text.starts_with('.') {
            files::link_tree(&source, &target)?;
        } else if source.is_file() && text.to_uppercase().starts_with("LICENSE") {
            files::link(&source, &target)?;
        }
    }
    Ok(())
}

/// Reads JSON, changes it, and writes it elsewhere.
fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Value)) -> Result<(), ApplyError> {
    let mut keys =
        files::read_json(from).map_err(|source| ApplyError::File { path: from.to_owned(), source })?;
    change(&mut keys);
    files::write_json(to, &keys).map_err(|source| ApplyError::File { path: to.to_owned(), source })
}
