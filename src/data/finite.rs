//! Refuses numbers that are not finite, in the points and latents that are read or written, and in what
//! the parts of a model give.

use std::path::Path;

use candle_core::Tensor;

use super::DataError;
use crate::model::Part;
use crate::nn::first_not_finite;

/// Fails at the first number that is not finite. `tensor` [rows, ..] is the one of this name in `place`.
pub(super) fn check(place: &Path, name: &'static str, tensor: &Tensor) -> Result<(), DataError> {
    match first_not_finite(tensor)? {
        None => Ok(()),
        Some((point, found)) => Err(DataError::BadValue {
            place: place.to_owned(),
            tensor: name,
            found: found.to_string(),
            point,
        }),
    }
}

/// Fails if a part of a model gave a number that is not finite. `result` [rows, ..] is what `part` made of each row, and
/// `of` names a row.
pub(super) fn check_result(
    part: Part,
    result: &Tensor,
    of: impl FnOnce(usize) -> String,
) -> Result<(), DataError> {
    match first_not_finite(result)? {
        None => Ok(()),
        Some((row, found)) => Err(DataError::NotFinite { part: part.folder(), found, of: of(row) }),
    }
}
