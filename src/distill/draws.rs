//! The host's part of a batch: rows of the training data, timesteps, captions and noise.
//!
//! Drawing takes a thread of the host as long as a GPU takes for a tenth of a step (16.8 million normal numbers for 256
//! samples of SDXL: 0.15 s), so it happens ahead of the training, on a thread of its own. Only tensors of the host exist
//! there: a device is used by one thread alone.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::Scope;

use candle_core::{Device, Tensor};
use rand_core::Rng;

use super::error::DistillError;
use super::parameters::DistillParameters;
use crate::backend::Random;
use crate::data::Latents;
use crate::data::order::below;
use crate::model::network::Conditioning;

/// The samples of a piece of a batch, and the row of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) samples: Vec<u64>,
    pub(super) rows: Vec<usize>,
}

/// What was drawn for a piece of a batch, on the host.
pub(super) struct Drawn {
    pub(super) samples: Vec<u64>,
    /// Clean latents, [samples, channels, height, width].
    pub(super) latents: Tensor,
    pub(super) conditioning: Conditioning,
    /// In the shape of the latents.
    pub(super) noise: Tensor,
    pub(super) timesteps: Vec<i64>,
}

/// Draws. Each number follows from the index of its sample.
#[derive(Clone, Copy)]
pub(super) struct Draws<'a> {
    pub(super) data: &'a Latents,
    pub(super) random: &'a Random,
    pub(super) parameters: &'a DistillParameters,
    pub(super) train_timesteps: usize,
}

impl Draws<'_> {
    pub(super) fn draw(&self, places: &Places) -> Result<Drawn, DistillError> {
        let Places { samples, rows } = places;
        let timesteps: Vec<i64> = samples
            .iter()
            .map(|sample| {
                let mut stream = self.random.stream("distill timestep", *sample);
                below(&mut stream, self.train_timesteps as u64) as i64
            })
            .collect();
        let captions: Vec<usize> = rows
            .iter()
            .zip(samples.iter().zip(&timesteps))
            .map(|(row, (sample, timestep))| self.caption(*row, *sample, *timestep))
            .collect();
        let fetched = self.data.fetch_with(rows, &captions, &Device::Cpu)?;
        let shape = &fetched.latents.dims()[1..];
        let noise: Vec<Tensor> =
            samples.iter().map(|sample| self.noise(*sample, shape)).collect::<candle_core::Result<_>>()?;
        Ok(Drawn {
            samples: samples.clone(),
            noise: Tensor::stack(&noise, 0)?,
            latents: fetched.latents,
            conditioning: fetched.conditioning,
            timesteps,
        })
    }

    /// The caption of a sample: that of its row, or, with the probability of random conditioning, one that is
    /// drawn.
    fn caption(&self, row: usize, sample: u64, timestep: i64) -> usize {
        let Some(lambda) = self.parameters.random_conditioning_lambda else {
            return self.data.caption_index(row);
        };
        let passed = timestep as f64 / self.train_timesteps as f64;
        let probability = (-lambda.get() * (1.0 - passed)).exp();
        let mut stream = self.random.stream("distill caption", sample);
        match (stream.next_u64() as f64) < probability * 2f64.powi(64) {
            true => {
                let captions = self.data.random_captions();
                captions.start + below(&mut stream, captions.len() as u64) as usize
            }
            false => self.data.caption_index(row),
        }
    }

    /// The noise of a sample, with an offset per channel if that is asked for.
    fn noise(&self, sample: u64, shape: &[usize]) -> candle_core::Result<Tensor> {
        let noise = self.random.normal("distill noise", sample, shape, &Device::Cpu)?;
        let deviation = self.parameters.noise_offset.get();
        if deviation == 0.0 {
            return Ok(noise);
        }
        let offset = self.random.normal("distill noise offset", sample, &[shape[0], 1, 1], &Device::Cpu)?;
        noise.broadcast_add(&(offset * deviation)?)
    }
}

/// A thread that draws while the training computes. It ends when this is dropped.
pub(super) struct Ahead {
    asked: Sender<Places>,
    drawn: Receiver<Result<Drawn, DistillError>>,
    /// What is being drawn.
    next: Option<Places>,
}

impl Ahead {
    /// Starts the thread.
    pub(super) fn start<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, draws: Draws<'env>) -> Self {
        let (asked, orders) = mpsc::channel::<Places>();
        let (give, drawn) = mpsc::channel();
        scope.spawn(move || {
            for places in orders {
                if give.send(draws.draw(&places)).is_err() {
                    break;
                }
            }
        });
        Self { asked, drawn, next: None }
    }

    /// The draws of `places`, and begins those of `next`.
    pub(super) fn take(&mut self, places: Places, next: Option<Places>) -> Result<Drawn, DistillError> {
        if self.next.as_ref() != Some(&places) {
            // What was begun for other places is of no use.
            if self.next.take().is_some() {
                let _ = self.receive();
            }
            self.ask(places);
        }
        let drawn = self.receive();
        self.next = None;
        if let Some(next) = next {
            self.ask(next);
        }
        drawn
    }

    fn ask(&mut self, places: Places) {
        self.next = Some(places.clone());
        self.asked.send(places).expect("BUG: the drawing thread ended");
    }

    fn receive(&self) -> Result<Drawn, DistillError> {
        self.drawn.recv().expect("BUG: the drawing thread ended")
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::data::{LatentBatch, Texts};
    use crate::model::unet::UNetConfig;

    type Numbers = (Vec<f32>, Vec<f32>, Vec<i64>);

    fn numbers(drawn: Drawn) -> candle_core::Result<Numbers> {
        let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        Ok((flat(&drawn.latents)?, flat(&drawn.noise)?, drawn.timesteps))
    }

    #[test]
    fn what_is_drawn_ahead_is_what_is_drawn_at_once() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let random = Random::new(5, "student");
        let draw = |purpose, shape: &[usize]| random.normal(purpose, 0, shape, &Device::Cpu);
        let text = |rows| {
            let encoder_hidden_states = draw("text", &[rows, 3, 4])?;
            candle_core::Result::Ok(Conditioning { encoder_hidden_states, text_embeds: None, time_ids: None })
        };
        let batch = LatentBatch { latents: draw("latents", &[6, 4, 2, 2])?, conditioning: text(6)? };
        let captions: Vec<String> = (0..6).map(|row| format!("caption {row}")).collect();
        Latents::save(folder.path(), &batch, &captions, &text(1)?)?;
        let data = Latents::open(folder.path())?;
        let parameters =
            DistillParameters { noise_offset: crate::base::Real::new(0.1), ..Default::default() };
        let draws = Draws { data: &data, random: &random, parameters: &parameters, train_timesteps: 1000 };
        let places = |step: u64| Places {
            samples: vec![2 * step, 2 * step + 1],
            rows: vec![(2 * step as usize) % 6, (2 * step as usize + 1) % 6],
        };
        thread::scope(|scope| {
            let mut ahead = Ahead::start(scope, draws);
            // The third is not what was announced, as after a resume.
            for (step, announced) in [(0, Some(1)), (1, Some(2)), (7, Some(8)), (8, None), (9, None)] {
                let drawn = numbers(ahead.take(places(step), announced.map(places))?)?;
                assert_eq!(drawn, numbers(draws.draw(&places(step))?)?, "step {step}");
            }
            Ok(())
        })
    }
    #[test]
    fn a_caption_is_drawn_from_the_texts_with_a_probability_that_grows_with_noise()
    -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let random = Random::new(5, "student");
        let text = |rows: usize| -> candle_core::Result<Conditioning> {
            let encoder_hidden_states = random.normal("text", 0, &[rows, 3, 4], &Device::Cpu)?;
            Ok(Conditioning { encoder_hidden_states, text_embeds: None, time_ids: None })
        };
        let latents = random.normal("latents", 0, &[6, 4, 2, 2], &Device::Cpu)?;
        let captions = |name: &str, rows: usize| -> Vec<String> {
            (0..rows).map(|row| format!("{name} {row}")).collect()
        };
        let (data, texts) = (folder.path().join("data"), folder.path().join("texts"));
        std::fs::create_dir_all(&data).and_then(|()| std::fs::create_dir_all(&texts))?;
        Latents::save(
            &data,
            &LatentBatch { latents, conditioning: text(6)? },
            &captions("own", 6),
            &text(1)?,
        )?;
        Texts::save(&texts, &text(9)?, &captions("other", 9))?;
        let unet = UNetConfig::parse(r#"{ "cross_attention_dim": 4 }"#)?;
        let data = Latents::open(&data)?.with_texts(&texts, &unet)?;
        let parameters = DistillParameters {
            random_conditioning_lambda: Some(crate::base::Real::new(5.0)),
            ..Default::default()
        };
        let draws = Draws { data: &data, random: &random, parameters: &parameters, train_timesteps: 1000 };
        for timestep in [0, 400, 800, 999] {
            let drawn: Vec<usize> = (0..4000).map(|sample| draws.caption(3, sample, timestep)).collect();
            // The caption of the row, or one of the nine.
            assert!(drawn.iter().all(|caption| *caption == 3 || (6..15).contains(caption)));
            let others = drawn.iter().filter(|caption| **caption != 3).count() as f64 / 4000.0;
            let expected = (-5.0 * (1.0 - timestep as f64 / 1000.0)).exp();
            // Four standard deviations of a share of 4000.
            assert!((others - expected).abs() < 0.032, "{others} at {timestep}, not {expected}");
            let missing = (6..15).filter(|caption| !drawn.contains(caption)).count();
            assert!(missing == 0 || timestep < 800, "{missing} texts are never drawn");
        }
        Ok(())
    }
}
