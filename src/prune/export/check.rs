//! Compares the predictions of a written model with those of its source.

use candle_core::{DType, Device, Tensor};

use super::error::ExportError;
use crate::model::Weights;
use crate::model::unet::{Probe, UNet};

/// Side of the latents, in pixels of the innermost level: large enough for every layer to mix neighbouring pixels.
const INNERMOST_SIDE: usize = 4;

/// The relative L2 distance between the predictions of two U-Nets. Only one of them is in memory at a time.
pub(super) fn relative_error(
    made_from: impl FnOnce() -> Result<UNet, ExportError>,
    written: impl FnOnce() -> Result<UNet, ExportError>,
) -> Result<f64, ExportError> {
    let (probe, expected) = {
        let unet = made_from()?;
        let side = INNERMOST_SIDE << (unet.config().levels.len() - 1);
        let probe = Probe::new(unet.config(), 1, (side, side), &Device::Cpu)?;
        let expected = probe.predict(&unet)?;
        (probe, expected)
    };
    let found = probe.predict(&written()?)?;
    let length = |tensor: &Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f32>();
    let (off, whole) = (length(&(found - &expected)?)?, length(&expected)?);
    Ok(f64::from(off / whole).sqrt())
}

/// The type in which weights are stored.
pub(super) fn compute_dtype(weights: &Weights) -> DType {
    weights.names().next().and_then(|name| weights.dtype(name).ok()).unwrap_or(DType::F32)
}
