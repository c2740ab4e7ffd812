//! A scorer's features of texts and of pictures, scaled to length 1.

use candle_core::{D, DType, Device, Tensor};
use image::RgbImage;

use super::error::MetricError;
use crate::base::{Interrupt, Progress};
use crate::model::Scorer;
use crate::nn::first_not_finite;

/// Texts or pictures per forward pass of an encoder.
pub(super) const BATCH: usize = 32;

/// The features of texts, [n, d] f32. `progress` receives the number of texts so far.
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

/// The features of a few pictures, [n, d] f32. `of` names a picture by its index.
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

/// Scales rows to length 1, in f32. `of` names a row. A cosine with NaN would count as 0, so it is an error.
fn normalised(features: &Tensor, of: impl FnOnce(usize) -> String) -> Result<Tensor, MetricError> {
    let features = features.to_dtype(DType::F32)?;
    let features = features.broadcast_div(&features.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?;
    match first_not_finite(&features)? {
        Some((row, found)) => Err(MetricError::Scorer { found, of: of(row) }),
        None => Ok(features),
    }
}
