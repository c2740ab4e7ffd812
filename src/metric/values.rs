//! The values of a metric: their file, in f64 without loss, and the check that they are numbers.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::error::MetricError;
use super::tensors;
use crate::base::{FileError, files};

const FILE: &str = "values.safetensors";
const NAME: &str = "values";
/// Why there are no values.
const UNAVAILABLE: &str = "unavailable.json";

/// What measuring a metric comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Measured {
    /// One value, or one for each prompt.
    Values(Vec<f64>),
    /// Why it cannot be measured on this machine or device.
    Unavailable(String),
}

/// Writes the values of a metric into a folder.
pub(super) fn write(folder: &Path, measured: Measured) -> Result<(), MetricError> {
    match measured {
        Measured::Values(values) => {
            let path = folder.join(FILE);
            let values = HashMap::from([(NAME, Tensor::new(values, &Device::Cpu)?)]);
            tensors::write(&path, values)
        }
        Measured::Unavailable(reason) => {
            let path = folder.join(UNAVAILABLE);
            Ok(files::write_json(&path, &reason).map_err(FileError::at(&path))?)
        }
    }
}

/// Reads what [`write()`] wrote.
pub(super) fn read(folder: &Path) -> Result<Measured, MetricError> {
    let path = folder.join(UNAVAILABLE);
    match files::read_json(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        reason => return Ok(Measured::Unavailable(reason.map_err(FileError::at(&path))?)),
    }
    Ok(Measured::Values(tensors::read(&folder.join(FILE), NAME)?.to_vec1()?))
}

/// Fails if a value is NaN or infinite.
pub(super) fn finite(metric: &'static str, model: &str, values: Vec<f64>) -> Result<Vec<f64>, MetricError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(index) => {
            let (model, found) = (model.to_owned(), values[index]);
            Err(MetricError::NotFinite { metric, model, found, index })
        }
    }
}
