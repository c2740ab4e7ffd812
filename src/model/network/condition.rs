//! The inputs of a network besides the latents.

use candle_core::{DType, Device, Result, Tensor};

use crate::nn::to_device;

/// The text condition of each sample of a batch, as returned by the text encoders.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// [b, tokens, cross_attention_dim]
    pub encoder_hidden_states: Tensor,
    /// SDXL: the pooled text, [b, projection].
    pub text_embeds: Option<Tensor>,
    /// SDXL: original height and width, crop top and left, target height and width, [b, 6].
    pub time_ids: Option<Tensor>,
}

impl Conditioning {
    /// Applies the same operation to each tensor.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            encoder_hidden_states: f(&self.encoder_hidden_states)?,
            text_embeds: self.text_embeds.as_ref().map(&f).transpose()?,
            time_ids: self.time_ids.as_ref().map(&f).transpose()?,
        })
    }

    /// `count` samples starting at `start`.
    pub fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        self.map(|tensor| tensor.narrow(0, start, count))
    }

    /// The samples at the indices `rows`, `[n]` u32, in this order.
    pub fn select(&self, rows: &Tensor) -> Result<Self> {
        self.map(|tensor| tensor.index_select(rows, 0))
    }

    /// Concatenates the samples of all parts in order. An optional tensor is kept if every part has it.
    pub fn cat(parts: &[&Self]) -> Result<Self> {
        let all = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0);
        let optional = |pick: fn(&Self) -> Option<&Tensor>| {
            let tensors: Option<Vec<&Tensor>> = parts.iter().map(|part| pick(part)).collect();
            tensors.map(all).transpose()
        };
        Ok(Self {
            encoder_hidden_states: all(parts.iter().map(|part| &part.encoder_hidden_states).collect())?,
            text_embeds: optional(|part| part.text_embeds.as_ref())?,
            time_ids: optional(|part| part.time_ids.as_ref())?,
        })
    }

    /// A copy on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        self.map(|tensor| to_device(tensor, device))
    }

    /// A copy in another type.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.map(|tensor| tensor.to_dtype(dtype))
    }
}

/// Inputs of every step of a walk; computed once per walk.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The time embedding after its SiLU, [b, time].
    pub embedding: Tensor,
    /// [b, tokens, cross_attention_dim]
    pub encoder_hidden_states: Tensor,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditioning(rows: usize, embeds: bool) -> Result<Conditioning> {
        let tensor =
            |width: usize| Tensor::arange(0f32, (rows * width) as f32, &Device::Cpu)?.reshape((rows, width));
        Ok(Conditioning {
            encoder_hidden_states: tensor(6)?.reshape((rows, 2, 3))?,
            text_embeds: embeds.then(|| tensor(2)).transpose()?,
            time_ids: Some(tensor(6)?),
        })
    }

    #[test]
    fn rows_are_selected_in_every_tensor() -> Result<()> {
        let selected = conditioning(3, true)?.select(&Tensor::new(&[2u32, 0], &Device::Cpu)?)?;
        assert_eq!(selected.encoder_hidden_states.dims(), [2, 2, 3]);
        let embeds = selected.text_embeds.as_ref().map(Tensor::to_vec2::<f32>).transpose()?;
        assert_eq!(embeds, Some(vec![vec![4.0, 5.0], vec![0.0, 1.0]]));
        let ids = selected.narrow(1, 1)?.time_ids.as_ref().map(Tensor::to_vec2::<f32>).transpose()?;
        assert_eq!(ids, Some(vec![vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]));
        Ok(())
    }

    #[test]
    fn an_optional_tensor_is_kept_if_every_part_has_it() -> Result<()> {
        let (with, without) = (conditioning(2, true)?, conditioning(1, false)?);
        let both = Conditioning::cat(&[&with, &without])?;
        assert_eq!(both.encoder_hidden_states.dims(), [3, 2, 3]);
        assert!(both.text_embeds.is_none());
        assert_eq!(both.time_ids.map(|ids| ids.dims().to_vec()), Some(vec![3, 6]));
        Ok(())
    }
}
