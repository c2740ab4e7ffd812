//! Whether a written model predicts what the model predicts that it was made from.

use candle_core::{DType, Device, Tensor};

use super::ExportError;
use crate::backend::Random;
use crate::model::UNetConfig;
use crate::model::unet::{Conditioning, UNet};

/// Side of the latents, in pixels of the innermost level: enough for every layer to mix neighbours.
const INNERMOST_SIDE: usize = 4;
/// CLIP's context.
const TOKENS: usize = 77;

/// One random point for a U-Net.
struct Point {
    sample: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
}

impl Point {
    fn new(config: &UNetConfig) -> candle_core::Result<Self> {
        let random = Random::new(0, "export");
        let normal = |name, shape: &[usize]| random.normal(name, 0, shape, &Device::Cpu);
        let side = INNERMOST_SIDE << (config.levels.len() - 1);
        let pooled = config.text_time.map(|text_time| text_time.input_dim - 6 * text_time.time_dim);
        let picture = (8 * side) as f32;
        let sizes = [[picture, picture, 0.0, 0.0, picture, picture]];
        Ok(Self {
            sample: normal("sample", &[1, config.in_channels, side, side])?,
            timestep: Tensor::new(&[500i64], &Device::Cpu)?,
            conditioning: Conditioning {
                encoder_hidden_states: normal("text", &[1, TOKENS, config.innermost().cross_attention_dim])?,
                text_embeds: pooled.map(|width| normal("pooled", &[1, width])).transpose()?,
                time_ids: pooled.map(|_| Tensor::new(&sizes, &Device::Cpu)).transpose()?,
            },
        })
    }

    fn predict(&self, unet: &UNet) -> candle_core::Result<Tensor> {
        unet.forward(&self.sample, &self.timestep, &self.conditioning)?.to_dtype(DType::F32)
    }
}

/// The relative L2 distance of the predictions of two U-Nets, of which one at a time is in memory.
pub(super) fn relative_error(
    made_from: impl FnOnce() -> Result<UNet, ExportError>,
    written: impl FnOnce() -> Result<UNet, ExportError>,
) -> Result<f64, ExportError> {
    let (point, expected) = {
        let unet = made_from()?;
        let point = Point::new(unet.config())?;
        let expected = point.predict(&unet)?;
        (point, expected)
    };
    let found = point.predict(&written()?)?;
    let length = |tensor: &Tensor| tensor.sqr()?.sum_all()?.to_scalar::<f32>();
    let (off, whole) = (length(&(found - &expected)?)?, length(&expected)?);
    Ok(f64::from(off / whole).sqrt())
}
