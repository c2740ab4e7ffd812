//! The values of a metric: their file, in f64 without loss, and the check that they are numbers.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};

use super::error::MetricError;
use crate::base::FileError;
use crate::model::files::weights;

const FILE: &str = "values.safetensors";
const NAME: &str = "values";

/// Writes the values of a metric into a folder.
pub(super) fn write(folder: &Path, values: Vec<f64>) -> Result<(), MetricError> {
    let path = folder.join(FILE);
    let values = HashMap::from([(NAME, Tensor::new(values, &Device::Cpu)?)]);
    Ok(weights::write_with(&path, values, None).map_err(FileError::at(&path))?)
}

/// Reads what [`write()`] wrote.
pub(super) fn read(folder: &Path) -> Result<Vec<f64>, MetricError> {
    let path = folder.join(FILE);
    let values = safetensors::load(&path, &Device::Cpu)?;
    values.get(NAME).map_or_else(|| Ok(Vec::new()), |values| Ok(values.to_vec1()?))
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
