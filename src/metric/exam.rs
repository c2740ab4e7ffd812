//! What all models of an evaluation are measured with, and one of them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::{Judge, MetricError, Need};
use crate::data::Calibration;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;

/// The same for every model.
pub struct Exam<'a> {
    /// What is drawn.
    pub prompts: &'a [String],
    /// The prompts as the U-Nets read them.
    pub conditioning: &'a Conditioning,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Who compares pictures with texts.
    pub judge: Option<Judge<'a>>,
    /// What a picture might show; the judge's captions.
    pub captions: &'a [String],
    /// Lists of words by the name of the attribute.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
    /// Held-out points, and the teacher's predictions on them.
    pub points: Option<(&'a Calibration, Tensor)>,
    /// Samples that go through a U-Net together.
    pub batch: usize,
}

/// One model.
pub struct Subject<'a> {
    /// Its U-Net.
    pub unet: &'a UNet,
    /// Its pictures of the prompts as the judge sees them, [n, d].
    pub features: Option<Tensor>,
}

impl Exam<'_> {
    /// The judge and its view of a model's pictures.
    pub fn judged<'s>(
        &'s self,
        metric: &'static str,
        subject: &'s Subject<'_>,
    ) -> Result<(&'s Judge<'s>, &'s Tensor), MetricError> {
        let judge = self.judge.as_ref().ok_or(MetricError::Needs { metric, need: Need::Scorer })?;
        let features =
            subject.features.as_ref().ok_or(MetricError::Needs { metric, need: Need::Pictures })?;
        Ok((judge, features))
    }

    /// One sample to run a U-Net on: the first prompt and latents of zeros, in the middle of the schedule.
    pub fn probe(&self) -> candle_core::Result<(Tensor, Tensor, Conditioning)> {
        let device = self.conditioning.encoder_hidden_states.device();
        let [channels, height, width] = self.latent;
        let first = |tensor: &Tensor| tensor.narrow(0, 0, 1);
        let conditioning = Conditioning {
            encoder_hidden_states: first(&self.conditioning.encoder_hidden_states)?,
            text_embeds: self.conditioning.text_embeds.as_ref().map(first).transpose()?,
            time_ids: self.conditioning.time_ids.as_ref().map(first).transpose()?,
        };
        let sample = Tensor::zeros((1, channels, height, width), DType::F32, device)?;
        Ok((sample, Tensor::new(&[500f32], device)?, conditioning))
    }
}

/// A U-Net's predictions on points, in f32, [N, c, h, w].
pub(super) fn predict(unet: &UNet, points: &Calibration, batch: usize) -> candle_core::Result<Tensor> {
    let mut predictions = Vec::new();
    for start in (0..points.len()).step_by(batch.max(1)) {
        let part = points.batch(start..points.len().min(start + batch.max(1)))?;
        let prediction = unet.forward(&part.sample, &part.timestep, &part.conditioning())?;
        predictions.push(prediction.to_dtype(DType::F32)?);
    }
    Tensor::cat(&predictions, 0)
}
