//! A scorer's features of texts and of pictures.

use candle_core::{D, DType, Device, Tensor};
use image::RgbImage;

use super::error::MetricError;
use crate::base::{Interrupt, Progress};
use crate::model::scorers::{BertTokenizer, ImageReward};
use crate::model::{PictureModel, Scorer};
use crate::nn::first_not_finite;

/// Texts or pictures per forward pass of an encoder.
pub(super) const BATCH: usize = 32;

/// A CLIP's features of texts, [n, d] f32, of length 1. `progress` receives the number of texts so far.
pub fn text_features(
    scorer: &Scorer,
    texts: &[String],
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<Tensor, MetricError> {
    let mut features = Vec::new();
    for (index, batch) in texts.chunks(BATCH).enumerate() {
        interrupt.check()?;
        progress.position((index * BATCH) as u64);
        let texts: Vec<&str> = batch.iter().map(String::as_str).collect();
        features.push(scorer.model.text_features(&scorer.tokenizer.encode(&texts)?.ids)?);
    }
    normalised(&Tensor::cat(&features, 0)?, |row| format!("the text `{}`", texts[row]))
}

/// A CLIP's features of a few pictures, [n, d] f32, of length 1. `of` names a picture by its index.
pub fn picture_features(
    scorer: &Scorer,
    pictures: &[RgbImage],
    device: &Device,
    of: impl FnOnce(usize) -> String,
) -> Result<Tensor, MetricError> {
    let mut features = Vec::new();
    for batch in pictures.chunks(BATCH) {
        let prepared = batch.iter().map(|picture| scorer.preprocess.prepare(picture));
        let batch = Tensor::stack(&prepared.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        features.push(scorer.model.image_features(&batch.to_device(device)?)?);
    }
    normalised(&Tensor::cat(&features, 0)?, of)
}

/// What any scorer makes of one batch of pictures, [n, d] f32 on the CPU: a CLIP features of length 1, an ImageReward a score
/// for each of the texts of a picture, the others features as they are.
pub(super) fn looks(
    scorer: &PictureModel,
    pictures: &[RgbImage],
    texts: &[[&str; 2]],
    device: &Device,
    of: impl FnOnce(usize) -> String,
) -> Result<Tensor, MetricError> {
    if let PictureModel::Clip(scorer) = scorer {
        return Ok(picture_features(scorer, pictures, device, of)?.to_device(&Device::Cpu)?);
    }
    let prepared = scorer.prepare(pictures)?.to_device(device)?;
    let rows = match scorer {
        PictureModel::Clip(scorer) => scorer.model.image_features(&prepared)?,
        PictureModel::DinoV2(network) => network.features(&prepared)?,
        PictureModel::Inception(network) => network.features(&prepared)?,
        PictureModel::ImageReward(network, tokenizer) => rewards(network, tokenizer, &prepared, texts)?,
    };
    finite(rows.to_dtype(DType::F32)?.to_device(&Device::Cpu)?, of)
}

/// The scores of prepared pictures for two texts each, [n, 2].
fn rewards(
    network: &ImageReward,
    tokenizer: &BertTokenizer,
    pictures: &Tensor,
    texts: &[[&str; 2]],
) -> Result<Tensor, MetricError> {
    let states = network.look(pictures)?;
    let mut scores = Vec::with_capacity(2 * texts.len());
    for (row, texts) in texts.iter().enumerate() {
        let state = states.narrow(0, row, 1)?.contiguous()?;
        for text in texts {
            scores.push(network.score(&state, &tokenizer.encode(text)?)?);
        }
    }
    Ok(Tensor::from_vec(scores, (texts.len(), 2), &Device::Cpu)?)
}

/// Scales rows to length 1, in f32. `of` names a row. A cosine with NaN would count as 0, so it is an error.
fn normalised(features: &Tensor, of: impl FnOnce(usize) -> String) -> Result<Tensor, MetricError> {
    let features = features.to_dtype(DType::F32)?;
    finite(features.broadcast_div(&features.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?, of)
}

fn finite(features: Tensor, of: impl FnOnce(usize) -> String) -> Result<Tensor, MetricError> {
    match first_not_finite(&features)? {
        Some((row, found)) => Err(MetricError::Scorer { found, of: of(row) }),
        None => Ok(features),
    }
}
