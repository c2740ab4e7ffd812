//! The student's weights in a checkpoint, so that one can look at a student before its training ends.
//!
//! A training may be writing to the same folder: nothing is changed, and a checkpoint that disappears meanwhile was
//! replaced by a newer one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

use super::checkpoint;
use super::error::DistillError;
use crate::base::{Mapping, kept};

/// The moving average's and the weights' prefixes in a checkpoint.
const AVERAGE: &str = "average.";
const PARAMETER: &str = "parameter.";

/// The student of a checkpoint.
pub struct Glimpse {
    /// Steps done.
    pub step: u64,
    /// Whether these are the moving average, which is what a training ends with if it keeps one.
    pub averaged: bool,
    /// The weights that are trained, by name.
    pub weights: BTreeMap<String, Tensor>,
}

/// Reads the newest whole checkpoint in a folder, or the one of this step; `damaged` receives the names of those that
/// are not whole.
pub fn look(
    folder: &Path,
    step: Option<u64>,
    damaged: &mut dyn FnMut(&str),
) -> Result<Option<Glimpse>, DistillError> {
    // Between two looks at the folder, the training may replace what was found.
    for path in (0..3).flat_map(|_| checkpoint::list(folder).into_iter().flatten()) {
        let Some(found) = checkpoint::step_of(&path).filter(|found| step.is_none_or(|step| step == *found))
        else {
            continue;
        };
        match kept::matches(&path)? {
            None => {}
            Some(false) => damaged(&path.file_name().unwrap_or_default().to_string_lossy()),
            Some(true) => match Mapping::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                bytes => return Ok(Some(read(&bytes.map_err(DistillError::file(&path))?, found)?)),
            },
        }
    }
    Ok(None)
}

/// The steps of the checkpoints in a folder, the newest first.
pub fn steps(folder: &Path) -> Result<Vec<u64>, DistillError> {
    Ok(checkpoint::list(folder)?.iter().filter_map(|path| checkpoint::step_of(path)).collect())
}

fn read(bytes: &[u8], step: u64) -> Result<Glimpse, DistillError> {
    let contents = SafeTensors::deserialize(bytes).map_err(candle_core::Error::from)?;
    let averaged = contents.names().iter().any(|name| name.starts_with(AVERAGE));
    let prefix = if averaged { AVERAGE } else { PARAMETER };
    let mut weights = BTreeMap::new();
    for (name, view) in contents.iter() {
        if let Some(name) = name.strip_prefix(prefix) {
            weights.insert(name.to_owned(), view.load(&Device::Cpu)?);
        }
    }
    Ok(Glimpse { step, averaged, weights })
}
