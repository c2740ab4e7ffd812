//! Model artefacts: how they are opened, and the file beside the model.

use std::path::Path;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::StageError;
use crate::backend::Dtype;
use crate::base::{Artefact, files};
use crate::model::ModelDirectory;
use crate::model::unet::UNet;

/// The file beside the model with the parameters of `load` that later stages need.
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
        Self::at(&artefact.path)
    }

    /// The model of an artefact in this folder.
    pub(super) fn at(folder: &Path) -> Result<Self, StageError> {
        let directory = ModelDirectory::open(folder)?;
        Ok(Self { directory, dtype: Computation::open(folder)?.dtype.into() })
    }

    pub(super) fn unet(&self, device: &Device) -> Result<UNet, StageError> {
        Ok(self.directory.unet(self.dtype, device)?)
    }
}
