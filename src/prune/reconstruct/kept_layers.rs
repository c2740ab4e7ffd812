//! Solved layers in the checkpoint, one file each, so that an interrupted reconstruction resumes after the last of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::error::ReconstructError;
use super::record::LayerRecord;
use super::ridge::Solved;
use crate::base::{FileError, Progress, kept};
use crate::model::files::weights::{self, Weights};

/// The key of the record in a file's metadata.
const RECORD: &str = "layer";

/// The folder of the checkpoint.
pub(super) struct Kept<'a>(&'a Path);

impl<'a> Kept<'a> {
    pub(super) fn new(checkpoint: &'a Path) -> Self {
        Self(checkpoint)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.0.join(format!("reconstructed-{number:04}.safetensors"))
    }

    /// How many layers from the first on are there and whole.
    pub(super) fn count(&self, layers: usize, progress: &dyn Progress) -> Result<usize, ReconstructError> {
        for number in 0..layers {
            if !kept::is_whole(&self.path(number), progress)? {
                return Ok(number);
            }
        }
        Ok(layers)
    }

    pub(super) fn write(&self, number: usize, solved: &Solved) -> Result<(), ReconstructError> {
        let record = serde_json::to_string(&solved.record).expect("BUG: a record is not JSON");
        let tensors: Vec<(&str, Tensor)> = match &solved.weights {
            Some((weight, bias)) => vec![("weight", weight.clone()), ("bias", bias.clone())],
            None => Vec::new(),
        };
        kept::write(&self.path(number), |path| {
            let metadata = HashMap::from([(RECORD.to_owned(), record.clone())]);
            Ok(weights::write_with(path, tensors.clone(), Some(metadata)).map_err(FileError::at(path))?)
        })
    }

    /// The record of a layer, and its new weight and bias if it has some.
    pub(super) fn read(
        &self,
        number: usize,
    ) -> Result<(LayerRecord, Option<(Tensor, Tensor)>), ReconstructError> {
        let path = self.path(number);
        let file = Weights::open(&path)?;
        let text = file.metadata().remove(RECORD).unwrap_or_default();
        let record: LayerRecord =
            serde_json::from_str(&text).map_err(|error| FileError::at(&path)(error.into()))?;
        if !record.taken {
            return Ok((record, None));
        }
        let tensor = |name| file.tensor(name, file.dtype(name)?, &Device::Cpu);
        let weights = (tensor("weight")?, tensor("bias")?);
        Ok((record, Some(weights)))
    }
}
