//! The inputs of the metrics: what all models share, and a scorer's features of one model's pictures.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};

use crate::data::Calibration;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::sample::NoiseSchedule;

/// The texts of an evaluation.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    /// The prompts of the pictures.
    pub prompts: &'a [String],
    /// The words of each attribute, by its name.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
}

/// What the metrics of a U-Net share.
pub struct NetworkInputs<'a> {
    /// The prompts, encoded.
    pub conditioning: &'a Conditioning,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// Held-out points, and the teacher's predictions on them.
    pub points: Option<(&'a Calibration, Tensor)>,
    /// The noise schedule that the models were trained with.
    pub schedule: &'a NoiseSchedule,
    /// Samples per forward pass of a U-Net.
    pub batch: usize,
}

/// A model in memory, and what several metrics need of it.
pub struct InMemory {
    /// The model.
    pub unet: UNet,
    squares: OnceCell<Vec<f64>>,
}

/// What a scorer makes of one picture per prompt. All features have length 1.
pub struct FeatureInputs<'a> {
    /// The texts that the pictures are compared with, one per picture.
    pub prompts: &'a [String],
    /// Their features, [n, d].
    pub prompt_features: &'a Tensor,
    /// The captions to choose from.
    pub captions: &'a [String],
    /// Their features, [m, d].
    pub caption_features: &'a Tensor,
    /// The words of each attribute, by its name.
    pub attributes: &'a BTreeMap<String, Vec<String>>,
    /// The features of the pictures, [n, d].
    pub pictures: &'a Tensor,
    /// The factor of the cosines: the exponential of the learned `logit_scale`.
    pub logit_scale: f64,
}

/// What a scorer makes of a set of pictures: the features of each seed, [n, d].
pub struct SetInputs<'a> {
    /// Those of a model.
    pub pictures: &'a [Tensor],
    /// Those of the reference.
    pub reference: &'a [Tensor],
    /// Whether rows of the reference belong to the same prompts.
    pub paired: bool,
}

impl NetworkInputs<'_> {
    /// One sample to time a U-Net with: zero latents and the first prompt, at timestep 500.
    pub fn probe(&self) -> candle_core::Result<(Tensor, Tensor, Conditioning)> {
        let device = self.conditioning.encoder_hidden_states.device();
        let [channels, height, width] = self.latent;
        let conditioning = self.conditioning.narrow(0, 1)?;
        let sample = Tensor::zeros((1, channels, height, width), DType::F32, device)?;
        Ok((sample, Tensor::new(&[500f32], device)?, conditioning))
    }
}

impl InMemory {
    pub(super) fn new(unet: UNet) -> Self {
        Self { unet, squares: OnceCell::new() }
    }

    /// The mean squared difference from the teacher's prediction at each of the points, which are predicted once.
    pub fn squares(
        &self,
        points: &Calibration,
        teacher: &Tensor,
        batch: usize,
    ) -> candle_core::Result<&[f64]> {
        if let Some(squares) = self.squares.get() {
            return Ok(squares);
        }
        let squares = mean_squares(&(predict(&self.unet, points, batch)? - teacher)?)?;
        Ok(self.squares.get_or_init(|| squares))
    }
}

impl FeatureInputs<'_> {
    /// The cosine of each picture with its own prompt.
    pub fn cosines(&self) -> candle_core::Result<Vec<f64>> {
        cosines(self.pictures, self.prompt_features)
    }

    /// For each picture the index of the caption with the largest cosine; the first one of equals.
    pub fn best_captions(&self) -> candle_core::Result<Vec<usize>> {
        let cosines = self.pictures.matmul(&self.caption_features.t()?)?.to_vec2::<f32>()?;
        let best = |row: &Vec<f32>| {
            let better = |best: usize, next: usize| if row[next] > row[best] { next } else { best };
            (0..row.len()).reduce(better).unwrap_or(0)
        };
        Ok(cosines.iter().map(best).collect())
    }
}

/// The cosines of rows of length 1, pair by pair.
pub fn cosines(one: &Tensor, other: &Tensor) -> candle_core::Result<Vec<f64>> {
    (one * other)?.sum(D::Minus1)?.to_dtype(DType::F64)?.to_vec1()
}

/// CLIP scores from cosines: 100 times the cosine, at least 0.
pub fn clip_scores(cosines: &[f64]) -> Vec<f64> {
    cosines.iter().map(|cosine| 100.0 * cosine.max(0.0)).collect()
}

/// The mean square of each sample of a batch.
pub(super) fn mean_squares(difference: &Tensor) -> candle_core::Result<Vec<f64>> {
    difference.to_dtype(DType::F64)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1()
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    #[test]
    fn the_mean_is_over_elements() -> candle_core::Result<()> {
        let difference = candle_core::Tensor::new(&[[[[1f32, -3.0]]], [[[0.0, 2.0]]]], &Device::Cpu)?;
        assert_eq!(super::mean_squares(&difference)?, [5.0, 2.0]);
        Ok(())
    }
}
