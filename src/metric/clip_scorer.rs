//! A CLIP model that compares pictures with texts. The texts are encoded once.

use candle_core::{D, DType, Device, Tensor};
use image::RgbImage;

use super::error::MetricError;
use crate::base::{Interrupt, Progress};
use crate::model::Scorer;
use crate::nn::first_not_finite;

/// Texts or pictures per forward pass of an encoder.
const BATCH: usize = 32;

/// A CLIP model with the encoded prompts and captions that pictures are compared with.
pub struct ClipScorer<'a> {
    scorer: &'a Scorer,
    device: Device,
    texts: &'a [String],
    prompts: Tensor,
    captions: Tensor,
}

impl<'a> ClipScorer<'a> {
    /// Encodes the texts. `captions` may be the prompts themselves.
    pub fn new(
        scorer: &'a Scorer,
        prompts: &'a [String],
        captions: &[String],
        device: &Device,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Self, MetricError> {
        progress.length((prompts.len() + captions.len()) as u64, "captions");
        let mut done = 0;
        let mut read = |texts: &[String]| -> Result<Tensor, MetricError> {
            let mut features = Vec::new();
            for batch in texts.chunks(BATCH) {
                interrupt.check()?;
                progress.position(done);
                done += batch.len() as u64;
                let texts: Vec<&str> = batch.iter().map(String::as_str).collect();
                features.push(scorer.model.text_features(&scorer.tokenizer.encode(&texts)?.ids)?);
            }
            normalised(&Tensor::cat(&features, 0)?, |row| format!("the text `{}`", texts[row]))
        };
        let (features, captions) = (read(prompts)?, read(captions)?);
        Ok(Self { scorer, device: device.clone(), texts: prompts, prompts: features, captions })
    }

    /// The normalised features of one picture per prompt, [n, d].
    pub fn picture_features(&self, pictures: &[RgbImage]) -> Result<Tensor, MetricError> {
        let mut features = Vec::new();
        for batch in pictures.chunks(BATCH) {
            let prepared: Vec<Tensor> = batch
                .iter()
                .map(|picture| self.scorer.preprocess.prepare(picture))
                .collect::<candle_core::Result<_>>()?;
            let batch = Tensor::stack(&prepared, 0)?.to_device(&self.device)?;
            features.push(self.scorer.model.image_features(&batch)?);
        }
        normalised(&Tensor::cat(&features, 0)?, |row| format!("the picture of `{}`", self.texts[row]))
    }

    /// The cosine of each picture with its own prompt.
    pub fn cosines(&self, features: &Tensor) -> candle_core::Result<Vec<f64>> {
        (features * &self.prompts)?.sum(D::Minus1)?.to_dtype(DType::F64)?.to_vec1()
    }

    /// The CLIP score of each picture with its own prompt: 100 times the cosine, at least 0.
    pub fn clip_scores(&self, features: &Tensor) -> candle_core::Result<Vec<f64>> {
        Ok(self.cosines(features)?.into_iter().map(|cosine| 100.0 * cosine.max(0.0)).collect())
    }

    /// For each picture the index of the caption with the largest cosine; the first one of equals.
    pub fn best_captions(&self, features: &Tensor) -> candle_core::Result<Vec<usize>> {
        let cosines = features.matmul(&self.captions.t()?)?.to_vec2::<f32>()?;
        let best = |row: &Vec<f32>| {
            let better = |best: usize, next: usize| if row[next] > row[best] { next } else { best };
            (0..row.len()).reduce(better).unwrap_or(0)
        };
        Ok(cosines.iter().map(best).collect())
    }

    /// The factor of the cosines: the exponential of the learned `logit_scale`.
    pub fn logit_scale(&self) -> f64 {
        self.scorer.model.logit_scale()
    }
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
