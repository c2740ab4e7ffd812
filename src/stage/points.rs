//! The calibration points of a stage's input.

use super::{Context, StageError};
use crate::data::{self, Calibration};
use crate::model::UNetConfig;

/// Reads the points of the input of this name, for a U-Net of this shape.
pub(super) fn points(
    context: &Context<'_>,
    input: &str,
    unet: &UNetConfig,
) -> Result<Calibration, StageError> {
    let folder = &context.input(input).path;
    let points = data::Points::load(folder, context.device)?.calibration;
    points.check_fit(unet, folder)?;
    Ok(points)
}
