//! The inputs of every metric: what all models share, and the model at hand.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::clip_scorer::ClipScorer;
use super::error::MetricError;
use super::kinds::Need;
use crate::data::Calibration;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;

/// The texts of an evaluation.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    /// The prompts of the pictures.
    pub prompts: &'a [String],
    /// The words of each attribute, by its name.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
}

/// What is the same for every model.
pub struct EvaluationInputs<'a> {
    /// The prompts of the pictures.
    pub prompts: &'a [String],
    /// The prompts, encoded.
    pub conditioning: &'a Conditioning,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Compares pictures with texts.
    pub scorer: Option<ClipScorer<'a>>,
    /// The captions that the scorer chooses from.
    pub captions: &'a [String],
    /// The words of each attribute, by its name.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
    /// Held-out points, and the teacher's predictions on them.
    pub points: Option<(&'a Calibration, Tensor)>,
    /// Samples per forward pass of a U-Net.
    pub batch: usize,
}

/// One model.
pub struct LoadedModel<'a> {
    /// Its U-Net.
    pub unet: &'a UNet,
    /// The scorer's features of its pictures, one row per prompt, [n, d].
    pub features: Option<Tensor>,
}

impl EvaluationInputs<'_> {
    /// The scorer and its features of a model's pictures.
    pub fn scored_pictures<'s>(
        &'s self,
        metric: &'static str,
        model: &'s LoadedModel<'_>,
    ) -> Result<(&'s ClipScorer<'s>, &'s Tensor), MetricError> {
        let scorer = self.scorer.as_ref().ok_or(MetricError::Needs { metric, need: Need::Scorer })?;
        let features = model.features.as_ref().ok_or(MetricError::Needs { metric, need: Need::Pictures })?;
        Ok((scorer, features))
    }

    /// One sample to time a U-Net with: zero latents and the first prompt, at timestep 500.
    pub fn probe(&self) -> candle_core::Result<(Tensor, Tensor, Conditioning)> {
        let device = self.conditioning.encoder_hidden_states.device();
        let [channels, height, width] = self.latent;
        let conditioning = self.conditioning.narrow(0, 1)?;
        let sample = Tensor::zeros((1, channels, height, width), DType::F32, device)?;
        Ok((sample, Tensor::new(&[500f32], device)?, conditioning))
    }
}

/// The predictions of a U-Net on points, in f32, [N, c, h, w].
pub(super) fn predict(unet: &UNet, points: &Calibration, batch: usize) -> candle_core::Result<Tensor> {
    let mut predictions = Vec::new();
    for start in (0..points.len()).step_by(batch.max(1)) {
        let part = points.batch_on(start..points.len().min(start + batch.max(1)), unet.device())?;
        let prediction = unet.forward(&part.sample, &part.timestep, &part.conditioning())?;
        predictions.push(prediction.to_dtype(DType::F32)?);
    }
    Tensor::cat(&predictions, 0)
}
