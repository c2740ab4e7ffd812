//! Whether the U-Net itself predicts finite numbers: asked where a score is not finite, so that points or weights are not
//! blamed on the unit that is measured first.

use super::error::ScoreError;
use crate::data::Calibration;
use crate::model::unet::UNet;
use crate::nn::first_not_finite;

/// Fails if the U-Net with all its units predicts a NaN or an infinity on a point.
pub(super) fn check(unet: &UNet, points: &Calibration, batch: usize) -> Result<(), ScoreError> {
    for start in (0..points.len()).step_by(batch.max(1)) {
        let part = points.batch_on(start..points.len().min(start + batch.max(1)), unet.device())?;
        let prediction = unet.forward(&part.sample, &part.timestep, &part.conditioning())?;
        if let Some((row, value)) = first_not_finite(&prediction)? {
            return Err(ScoreError::Prediction { point: start + row, value });
        }
    }
    Ok(())
}
