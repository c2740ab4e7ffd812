//! The files of tensors that an evaluation keeps.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Error, Tensor, safetensors};

use super::error::MetricError;
use crate::base::FileError;
use crate::model::files::weights;

/// Writes named tensors.
pub(super) fn write(path: &Path, tensors: HashMap<&str, Tensor>) -> Result<(), MetricError> {
    Ok(weights::write_with(path, tensors, None).map_err(FileError::at(path))?)
}

/// Reads one of them, onto the CPU.
pub(super) fn read(path: &Path, name: &str) -> Result<Tensor, MetricError> {
    let mut tensors = safetensors::load(path, &Device::Cpu)?;
    Ok(tensors.remove(name).ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() })?)
}
