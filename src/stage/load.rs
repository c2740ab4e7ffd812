//! `load`: takes a model directory into the pipeline, after looking whether it is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Computation;
use super::{ArtefactKind, Context, FileInput, Input, Stage, StageError, StageInfo};
use crate::backend::Dtype;
use crate::base::{Manifest, files};
use crate::model::directory::{ModelDirectory, Part};

/// `with:` of `use: load`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Load {
    /// A diffusers model directory, or a bare U-Net directory (config.json and weights) where no later stage needs more.
    model: PathBuf,
    /// What later stages compute this model in. Default `f32`; weights on disk keep their own type.
    #[serde(default)]
    dtype: Dtype,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "load",
    version: 1,
    summary: "takes a diffusers model directory into the pipeline",
    output: ArtefactKind::Model,
    seeded: false,
    computes: false,
    schema: |generator| Load::json_schema(generator),
};

impl Stage for Load {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        manifest.field("dtype", self.dtype);
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        Vec::new()
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        vec![FileInput { name: "model", path: &self.model }]
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let source = context.file("model");
        check(source)?;
        link_model(source, context.output)?;
        Computation { dtype: self.dtype }.save(context.output)
    }
}

/// Reads every weight of the U-Net once: shapes against the config, and no number that is not one.
fn check(source: &Path) -> Result<(), StageError> {
    let directory = ModelDirectory::open(source)?;
    let weights = directory.unet_weights()?;
    weights.check(directory.unet_config()?.inventory().tensors())?;
    weights.check_finite()?;
    Ok(())
}

/// Links what belongs to the model. A folder may hold more (a README, a script, pictures), and none of that may
/// change the artefact's digest.
fn link_model(source: &Path, target: &Path) -> Result<(), StageError> {
    let index = source.join("model_index.json");
    if !source.join("unet").is_dir() {
        return files::link_tree(source, target).map_err(StageError::file(source));
    }
    let mut parts: Vec<String> = Part::ALL.map(|part| part.folder().to_owned()).into();
    if index.is_file() {
        files::link(&index, &target.join("model_index.json")).map_err(StageError::file(&index))?;
        let named: BTreeMap<String, serde_json::Value> =
            files::read_json(&index).map_err(StageError::file(&index))?;
        parts = named.into_keys().collect();
    }
    for part in parts.iter().filter(|part| !part.starts_with('_')) {
        let folder = source.join(part);
        if folder.is_dir() {
            files::link_tree(&folder, &target.join(part)).map_err(StageError::file(&folder))?;
        }
    }
    Ok(())
}
