//! The batch of one training step: rows, timesteps, noise, and the teacher's prediction.
//!
//! Everything follows from the index of the sample (step times batch size plus position in the batch): each draw has
//! its own stream. So a resumed run needs no generator state, and dividing a batch into pieces does not change the
//! numbers. Batches are drawn anew at every step: a fixed pool of noisy points would save the teacher's pass (one of
//! four, if a backward pass counts twice), but show the student far fewer points.

use candle_core::{Device, Tensor};
use rand_core::Rng;

use super::draws::{Drawn, Draws, Places};
use super::error::DistillError;
use super::feature_maps::{among, predict};
use super::losses::{self, Answer};
use super::order::Order;
use super::parameters::DistillParameters;
use crate::backend::Random;
use crate::base::Real;
use crate::base::bounded::Positive;
use crate::data::Latents;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::nn::{mean_square_difference, to_device};
use crate::sample::NoiseSchedule;
use crate::train::{ActivationCheckpointing, Input, Trainable};

/// The step whose output is the prediction.
const OUTPUT: &str = "conv_out";

/// One piece of a batch with the teacher's prediction.
pub(super) struct TrainingBatch {
    pub(super) input: Input,
    /// The noise or the velocity.
    pub(super) target: Tensor,
    /// The weights of the samples in the task loss, `[batch]`.
    pub(super) sample_weights: Option<Tensor>,
    pub(super) teacher: Answer,
}

impl TrainingBatch {
    /// The terms of the loss of a student, with the feature maps of `paths`.
    pub(super) fn terms(&self, student: &UNet, paths: &[String]) -> candle_core::Result<Tensor> {
        let student = predict(student, &self.input, paths)?;
        losses::terms(&student, &self.teacher, &self.target, self.sample_weights.as_ref())
    }

    /// Adds the gradients of the terms times `weights` to `into`, and returns the terms on their device: reading them
    /// would wait for it.
    pub(super) fn differentiate(
        &self,
        student: &Trainable,
        paths: &[String],
        checkpointing: ActivationCheckpointing,
        weights: &[f32],
        into: &mut Gradients,
    ) -> candle_core::Result<Tensor> {
        let mut terms: Vec<Option<Tensor>> = vec![None; weights.len()];
        let mut weighted = |index: usize, term: Tensor| {
            terms[index] = Some(term.detach());
            term * f64::from(weights[index])
        };
        let mut loss = |path: &str, hidden: &Tensor| {
            if path == OUTPUT {
                let task = losses::task(hidden, &self.target, self.sample_weights.as_ref())?;
                let output = mean_square_difference(hidden, &self.teacher.output)?;
                return Ok(Some((weighted(0, task)? + weighted(1, output)?)?));
            }
            let Some(map) = paths.iter().position(|wanted| wanted == path) else { return Ok(None) };
            let term = mean_square_difference(hidden, &self.teacher.features[map])?;
            weighted(2 + map, term).map(Some)
        };
        student.differentiate(&self.input, checkpointing, &mut loss, into)?;
        let terms: Vec<Tensor> = terms.into_iter().flatten().collect();
        Tensor::stack(&terms, 0)
    }
}

/// Makes batches.
pub(super) struct Batches<'a> {
    pub(super) teacher: &'a UNet,
    pub(super) data: &'a Latents,
    pub(super) schedule: &'a NoiseSchedule,
    pub(super) parameters: &'a DistillParameters,
    pub(super) random: &'a Random,
    pub(super) device: &'a Device,
    /// The text states of the empty prompt, a batch of one.
    pub(super) unconditional: Conditioning,
    /// The feature maps to keep, by their paths in the student.
    pub(super) paths: Vec<String>,
    /// How many levels the student has.
    pub(super) levels: usize,
    /// In how many pieces a batch is divided, over all ranks.
    pub(super) pieces: usize,
}

impl<'a> Batches<'a> {
    /// What draws the host's part of batches.
    pub(super) fn draws(&self) -> Draws<'a> {
        Draws {
            data: self.data,
            random: self.random,
            parameters: self.parameters,
            train_timesteps: self.schedule.train_timesteps(),
        }
    }

    /// The samples of one piece of the batch of one step, and their rows.
    pub(super) fn places(&self, step: u64, piece: usize, order: &mut Order) -> Places {
        let batch = self.parameters.batch_size.get();
        let size = batch / self.pieces;
        let first = step * batch as u64 + (piece * size) as u64;
        let samples: Vec<u64> = (first..first + size as u64).collect();
        let rows = samples.iter().map(|sample| order.row(*sample, self.random)).collect();
        Places { samples, rows }
    }

    /// One piece of the batch of one step.
    pub(super) fn piece(
        &self,
        step: u64,
        piece: usize,
        order: &mut Order,
    ) -> Result<TrainingBatch, DistillError> {
        self.finish(self.draws().draw(&self.places(step, piece, order))?)
    }

    /// What was drawn on the host, with the teacher's prediction.
    pub(super) fn finish(&self, drawn: Drawn) -> Result<TrainingBatch, DistillError> {
        let conditioning = drawn.conditioning.to_device(self.device)?;
        let conditioning = self.drop_text(conditioning, &drawn.samples)?;
        let [latents, noise] = [&drawn.latents, &drawn.noise].map(|drawn| to_device(drawn, self.device));
        let (latents, noise) = (latents?, noise?);
        self.batch(&latents, conditioning, &noise, drawn.timesteps)
    }

    /// A batch of clean latents with their text, noise and timesteps.
    pub(super) fn batch(
        &self,
        latents: &Tensor,
        conditioning: Conditioning,
        noise: &Tensor,
        timesteps: Vec<i64>,
    ) -> Result<TrainingBatch, DistillError> {
        let sample_weights = self.sample_weights(&timesteps)?;
        // The schedule reads the timesteps, which would wait for the device if they were there.
        let timestep = Tensor::new(timesteps, &Device::Cpu)?;
        let sample = self.schedule.add_noise(latents, noise, &timestep)?;
        let target = self.schedule.target(latents, noise, &timestep)?;
        let timestep = timestep.to_device(self.device)?;
        let paths = |path: &String| among(path, self.levels, self.teacher.config());
        let paths: Vec<String> = self.paths.iter().map(paths).collect();
        let input = Input { sample, timestep, conditioning };
        let teacher = predict(self.teacher, &input, &paths)?;
        Ok(TrainingBatch { input, target, sample_weights, teacher })
    }

    fn sample_weights(&self, timesteps: &[i64]) -> candle_core::Result<Option<Tensor>> {
        let weights = |gamma: Real<Positive>| {
            Tensor::new(self.schedule.min_snr_weights(timesteps, gamma.get()), self.device)
        };
        self.parameters.min_snr_gamma.map(weights).transpose()
    }

    /// Replaces the text of a fraction of the samples by the empty prompt.
    fn drop_text(&self, conditioning: Conditioning, samples: &[u64]) -> candle_core::Result<Conditioning> {
        let empty = &self.unconditional;
        let fraction = self.parameters.unconditional_fraction.get();
        let drawn = |sample: &u64| self.random.stream("distill unconditional", *sample).next_u64();
        let dropped: Vec<u8> = samples
            .iter()
            .map(|sample| u8::from((drawn(sample) as f64) < fraction * 2f64.powi(64)))
            .collect();
        if !dropped.contains(&1) {
            return Ok(conditioning);
        }
        let dropped = Tensor::new(dropped, self.device)?;
        let replace = |states: &Tensor, empty: &Tensor| replace(&dropped, states, empty);
        let text_embeds = match (&conditioning.text_embeds, &empty.text_embeds) {
            (Some(embeds), Some(empty)) => Some(replace(embeds, empty)?),
            (embeds, _) => embeds.clone(),
        };
        let encoder_hidden_states =
            replace(&conditioning.encoder_hidden_states, &empty.encoder_hidden_states)?;
        Ok(Conditioning { encoder_hidden_states, text_embeds, time_ids: conditioning.time_ids })
    }
}

/// `states` [n, ..], with `empty` [1, ..] where `dropped` `[n]` is not 0. The two may have different types: a text encoder
/// may compute in half precision, while stored states are f32.
fn replace(dropped: &Tensor, states: &Tensor, empty: &Tensor) -> candle_core::Result<Tensor> {
    let mut shape = vec![1; states.rank()];
    shape[0] = states.dim(0)?;
    let dropped = dropped.reshape(shape)?.broadcast_as(states.shape())?;
    dropped.where_cond(&empty.to_dtype(states.dtype())?.broadcast_as(states.shape())?, states)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn text_is_dropped_whatever_the_type_of_the_empty_prompt() -> candle_core::Result<()> {
        let states = Tensor::new(&[[[1f32, 2.0]], [[3.0, 4.0]]], &Device::Cpu)?;
        let dropped = Tensor::new(&[0u8, 1], &Device::Cpu)?;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let empty = Tensor::new(&[[[7f32, 8.0]]], &Device::Cpu)?.to_dtype(dtype)?;
            let replaced = replace(&dropped, &states, &empty)?;
            assert_eq!(replaced.to_vec3::<f32>()?, [[[1.0, 2.0]], [[7.0, 8.0]]], "{dtype:?}");
        }
        Ok(())
    }
}
