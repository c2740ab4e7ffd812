//! The calibration points of a stage's input.

use candle_core::Device;

use super::{Context, StageError};
use crate::data::{self, Calibration};
use crate::model::UNetConfig;

/// Reads the points of the input of this name, for a U-Net of this shape. They stay on the host: whoever computes with them
/// brings a batch at a time to the device.
pub(super) fn points(
    context: &Context<'_>,
    input: &str,
    unet: &UNetConfig,
) -> Result<Calibration, StageError> {
    let folder = &context.input(input).path;
    let points = data::Points::load(folder, &Device::Cpu)?.calibration;
    points.check_fit(unet, folder)?;
    Ok(points)
}
