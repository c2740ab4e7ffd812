//! The inputs of a U-Net besides the latents: the time, the text, and for SDXL the sizes of the picture.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::config::{TextTime, UNetConfig};
use crate::model::network::{Condition, Conditioning};
use crate::nn::{Linear, add, silu, timestep_embedding};

/// The layers that compute a [`Condition`].
#[derive(Clone, Debug)]
pub(super) struct Embedding {
    time_embedding: TwoLayers,
    add_embedding: Option<TwoLayers>,
}

impl Embedding {
    pub(super) fn new(config: &UNetConfig, vb: VarBuilder) -> Result<Self> {
        let time = config.time_embed_dim;
        let add = |text_time: &TextTime| TwoLayers::new(text_time.input_dim, time, vb.pp("add_embedding"));
        Ok(Self {
            time_embedding: TwoLayers::new(config.levels[0].channels, time, vb.pp("time_embedding"))?,
            add_embedding: config.text_time.as_ref().map(add).transpose()?,
        })
    }

    /// The device of its weights.
    pub(super) fn device(&self) -> &Device {
        self.time_embedding.linear_1.weight.device()
    }

    /// timestep [b] of any numeric type.
    pub(super) fn forward(
        &self,
        config: &UNetConfig,
        timestep: &Tensor,
        conditioning: &Conditioning,
        dtype: DType,
    ) -> Result<Condition> {
        let sinusoid = |values: &Tensor, dim| {
            // Always in f32: half precision would round timesteps above 256.
            let values = values.to_dtype(DType::F32)?;
            timestep_embedding(&values, dim, config.flip_sin_to_cos, config.freq_shift)?.to_dtype(dtype)
        };
        let mut embedding = self.time_embedding.forward(&sinusoid(timestep, config.levels[0].channels)?)?;
        if let (Some(layers), Some(text_time)) = (&self.add_embedding, &config.text_time) {
            let (Some(text), Some(ids)) = (&conditioning.text_embeds, &conditioning.time_ids) else {
                bail!("a U-Net with text_time conditioning needs `text_embeds` and `time_ids`")
            };
            let ids = sinusoid(&ids.flatten_all()?, text_time.time_dim)?.reshape((text.dim(0)?, ()))?;
            let input = Tensor::cat(&[&text.to_dtype(dtype)?, &ids], 1)?; // [b, input_dim]
            embedding = add(&embedding, &layers.forward(&input)?)?;
        }
        Ok(Condition {
            embedding: silu(&embedding)?,
            encoder_hidden_states: conditioning.encoder_hidden_states.to_dtype(dtype)?,
        })
    }
}

#[derive(Clone, Debug)]
struct TwoLayers {
    linear_1: Linear,
    linear_2: Linear,
}

impl TwoLayers {
    fn new(input: usize, output: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(input, output, true, vb.pp("linear_1"))?,
            linear_2: Linear::new(output, output, true, vb.pp("linear_2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&silu(&self.linear_1.forward(x)?)?)
    }
}
