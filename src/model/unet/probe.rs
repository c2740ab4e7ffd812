//! U-Net inputs of which only the shapes matter: for comparing the outputs of two U-Nets, or timing one.

use candle_core::{DType, Device, Result, Tensor};

use super::config::UNetConfig;
use super::network::UNet;
use crate::backend::Random;
use crate::model::network::Conditioning;

/// CLIP's context.
const TOKENS: usize = 77;

/// Random latents in the middle of the schedule, and random text states.
#[derive(Clone, Debug)]
pub struct Probe {
    /// [b, in_channels, h, w]
    pub sample: Tensor,
    /// `[b]`
    pub timestep: Tensor,
    /// The rest of the condition.
    pub conditioning: Conditioning,
}

impl Probe {
    /// A batch for a U-Net, with latents of this height and width. The values are the same every time.
    pub fn new(
        config: &UNetConfig,
        batch: usize,
        (height, width): (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let random = Random::new(0, "probe");
        let normal = |name, shape: &[usize]| random.normal(name, 0, shape, device);
        let pooled = config.pooled_width();
        let picture = [8 * height, 8 * width].map(|side| side as f32);
        let sizes = [picture[0], picture[1], 0.0, 0.0, picture[0], picture[1]];
        let text = [batch, TOKENS, config.innermost().cross_attention_dim];
        Ok(Self {
            sample: normal("sample", &[batch, config.in_channels, height, width])?,
            timestep: Tensor::full(500i64, batch, device)?,
            conditioning: Conditioning {
                encoder_hidden_states: normal("text", &text)?,
                text_embeds: pooled.map(|width| normal("pooled", &[batch, width])).transpose()?,
                time_ids: pooled
                    .map(|_| Tensor::new(&sizes, device)?.broadcast_as((batch, 6))?.contiguous())
                    .transpose()?,
            },
        })
    }

    /// The prediction of `unet` for this batch, in f32, [b, out_channels, h, w].
    pub fn predict(&self, unet: &UNet) -> Result<Tensor> {
        unet.forward(&self.sample, &self.timestep, &self.conditioning)?.to_dtype(DType::F32)
    }
}
