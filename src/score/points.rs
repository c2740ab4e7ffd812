//! What a U-Net is asked at the calibration points, as far as scores need it.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::model::unet::Conditioning;

/// Calibration points, all of one size.
#[derive(Clone, Debug)]
pub struct Points {
    /// Noisy latents [n, c, h, w].
    pub sample: Tensor,
    /// [n], of any numeric type.
    pub timestep: Tensor,
    /// The text of each point.
    pub conditioning: Conditioning,
}

impl Points {
    /// The number of points.
    pub fn len(&self) -> usize {
        self.timestep.elem_count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the points.
    pub fn narrow(&self, range: Range<usize>) -> Result<Self> {
        let narrow = |tensor: &Tensor| tensor.narrow(0, range.start, range.len())?.contiguous();
        let text = &self.conditioning;
        Ok(Self {
            sample: narrow(&self.sample)?,
            timestep: narrow(&self.timestep)?,
            conditioning: Conditioning {
                encoder_hidden_states: narrow(&text.encoder_hidden_states)?,
                text_embeds: text.text_embeds.as_ref().map(narrow).transpose()?,
                time_ids: text.time_ids.as_ref().map(narrow).transpose()?,
            },
        })
    }
}
