//! A model as a folder: a diffusers pipeline with its parts, a bare U-Net, or a scorer. The code that reads each part
//! is with the code of that part.

use std::path::{Path, PathBuf};

use super::part::Part;
use crate::base::files::read_json;
use crate::model::error::ModelError;

/// A model folder: a diffusers pipeline, or a bare U-Net or scorer with its `config.json` at the top.
#[derive(Clone, Debug)]
pub struct ModelDirectory {
    path: PathBuf,
    /// Whether the U-Net is at the top level.
    bare: bool,
}

impl ModelDirectory {
    /// Determines the kind of folder; reads no weights.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let pipeline = path.join("model_index.json").is_file() || path.join("unet/config.json").is_file();
        if !pipeline && !path.join("config.json").is_file() {
            return Err(ModelError::NoModel { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), bare: !pipeline })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the part exists.
    pub fn has(&self, part: Part) -> bool {
        self.folder(part).is_ok()
    }

    /// The folder of a part; the error says what needs it.
    pub fn folder(&self, part: Part) -> Result<PathBuf, ModelError> {
        let folder = match (self.bare, part) {
            (true, Part::UNet) => self.path.clone(),
            _ => self.path.join(part.folder()),
        };
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(ModelError::MissingPart { path: self.path.clone(), part: part.folder(), purpose: part.purpose() })
    }

    /// The scheduler's `scheduler_config.json`.
    pub fn scheduler_config(&self) -> Result<serde_json::Value, ModelError> {
        Ok(read_json(&self.folder(Part::Scheduler)?.join("scheduler_config.json"))?)
    }
}
