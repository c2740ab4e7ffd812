//! The calibration points of a stage's input.

use super::{Context, StageError};
use crate::data::{self, Calibration};

/// Reads the points of the input of this name.
pub(super) fn points(context: &Context<'_>, input: &str) -> Result<Calibration, StageError> {
    let folder = &context.input(input).path;
    Ok(data::Points::load(folder, context.device)?.calibration)
}
