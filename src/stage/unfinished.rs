//! A model from the checkpoint of a training that has no artefact yet, so that one can look at it before the end.

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::StageError;
use super::distill::{self, save_weights};
use crate::base::copies;
use crate::distill::{Glimpse, look};
use crate::model::ModelDirectory;

/// Whether the checkpoints of the stage with this `use:` name hold a model.
pub fn has_model(stage: &str) -> bool {
    stage == distill::INFO.name
}

/// Writes the model of the newest whole checkpoint in `checkpoint`, or of the one of this step, into the empty folder
/// `output`. `student` is the model that the training started from; `damaged` receives the names of checkpoints that
/// are not whole.
pub fn write_model(
    student: &Path,
    checkpoint: &Path,
    step: Option<u64>,
    output: &Path,
    damaged: &mut dyn FnMut(&str),
) -> Result<Option<Glimpse>, StageError> {
    let Some(mut found) = look(checkpoint, step, damaged)? else { return Ok(None) };
    let directory = ModelDirectory::open(student)?;
    let source = directory.unet_weights()?;
    for name in source.names() {
        // Frozen tensors are in no checkpoint.
        if !found.weights.contains_key(name) {
            let tensor: Tensor = source.tensor(name, source.dtype(name)?, &Device::Cpu)?;
            found.weights.insert(name.to_owned(), tensor);
        }
    }
    // Links would give the files of the artefact another name outside the cache.
    let link = |from: &Path, to: &Path| std::os::unix::fs::symlink(fs::canonicalize(from)?, to);
    copies::transfer_tree(student, output, link).map_err(StageError::file(student))?;
    save_weights(&directory, &found.weights, output)?;
    Ok(Some(found))
}
