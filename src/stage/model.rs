//! Model artefacts: how they are opened, and how one is made from another without copying its bytes.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::{Artefact, StageError};
use crate::backend::Dtype;
use crate::base::files;
use crate::model::directory::ModelDirectory;
use crate::model::unet::UNet;

/// Beside the model: what `load` was told and later stages need to know.
const FILE: &str = "laptop-diff.json";

/// How a model artefact is to be computed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Computation {
    /// The type of weights and activations.
    pub(super) dtype: Dtype,
}

impl Computation {
    pub(super) fn save(self, folder: &Path) -> Result<(), StageError> {
        let path = folder.join(FILE);
        files::write_json(&path, &self).map_err(StageError::file(&path))
    }

    pub(super) fn open(folder: &Path) -> Result<Self, StageError> {
        let path = folder.join(FILE);
        files::read_json(&path).map_err(StageError::file(&path))
    }
}

/// A model artefact, opened.
pub(super) struct Model {
    pub(super) directory: ModelDirectory,
    pub(super) dtype: DType,
}

impl Model {
    pub(super) fn open(artefact: &Artefact) -> Result<Self, StageError> {
        let directory = ModelDirectory::open(&artefact.path)?;
        Ok(Self { directory, dtype: Computation::open(&artefact.path)?.dtype.into() })
    }

    pub(super) fn unet(&self, device: &Device) -> Result<UNet, StageError> {
        Ok(self.directory.unet(self.dtype, device)?)
    }
}

/// Links every file below `from` to the same place below `to`. Hidden files belong to other tools and stay behind.
pub(super) fn link_tree(from: &Path, to: &Path) -> Result<(), StageError> {
    fs::create_dir_all(to).map_err(StageError::file(to))?;
    for entry in fs::read_dir(from).map_err(StageError::file(from))? {
        let entry = entry.map_err(StageError::file(from))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { link_tree(&source, &target)? } else { link(&source, &target)? }
    }
    Ok(())
}

/// A second name for the same bytes where the file system can, else a copy.
pub(super) fn link(source: &Path, target: &Path) -> Result<(), StageError> {
    // A hub folder consists of links into its store; the bytes are behind them.
    let source = source.canonicalize().map_err(StageError::file(source))?;
    if fs::hard_link(&source, target).is_err() {
        fs::copy(&source, target).map_err(StageError::file(&source))?;
    }
    Ok(())
}
