//! Refuses numbers that are not finite, in the points and latents that are read or written.

use std::path::Path;

use candle_core::{DType, Tensor};

use super::DataError;

/// Fails at the first number that is not finite. `tensor` [rows, ..] is the one of this name in `place`.
pub(super) fn check(place: &Path, name: &'static str, tensor: &Tensor) -> Result<(), DataError> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(DataError::BadValue {
            place: place.to_owned(),
            tensor: name,
            found: values[index].to_string(),
            point: index * tensor.dim(0)? / values.len(),
        }),
    }
}
