//! A U-Net with a sampler: turns noise and text into latents, with classifier-free guidance (Ho & Salimans 2022).

use std::cell::Cell;

use candle_core::{DType, Tensor};

use super::{Noise, NoiseSchedule, Path, SampleError, Sampler, integrate};
use crate::model::network::Conditioning;
use crate::model::unet::{UNet, UNetConfig};
use crate::nn::first_not_finite;

/// Everything that determines which latents result from given noise and text.
#[derive(Clone, Copy)]
pub struct Generator<'a> {
    /// The model.
    pub unet: &'a UNet,
    /// The noise schedule that the model was trained with.
    pub schedule: &'a NoiseSchedule,
    /// The sampler.
    pub sampler: &'a dyn Sampler,
    /// Steps of the sampler: one evaluation of the U-Net per step; `pndm` needs one more.
    pub steps: usize,
    /// The guidance scale. With a scale of at most 1 there is no guidance and half the work.
    pub guidance_scale: f64,
}

/// The latents before one evaluation of the U-Net.
pub struct Visit<'a> {
    /// The index of the sampler's step, from 0.
    pub leg: usize,
    /// The timestep passed to the U-Net; not an integer for Euler with `linspace`.
    pub timestep: f64,
    /// The input of the U-Net, [b, c, h, w] f32, of about unit variance.
    pub latents: &'a Tensor,
}

impl Generator<'_> {
    /// Turns `noise` for b samples into clean latents [b, c, h, w], all samples of the batch together.
    ///
    /// `conditioning` holds b texts, those of `prompts`; `unconditional` holds as many and is not read without guidance.
    /// `observe` can stop the walk by returning an error, such as [`crate::base::Interrupted`].
    pub fn run<E: From<SampleError> + From<candle_core::Error>>(
        &self,
        noise: &Noise<'_>,
        prompts: &[&str],
        conditioning: &Conditioning,
        unconditional: Option<&Conditioning>,
        observe: &mut dyn FnMut(Visit<'_>) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        check_inputs(self.unet.config())?;
        let path = Path::new(self.sampler, self.schedule, self.steps)?;
        let unconditional = unconditional.filter(|_| self.guidance_scale > 1.0);
        let both = unconditional.map(|texts| Conditioning::cat(&[texts, conditioning])).transpose()?;
        let steps = path.legs.len();
        let step = Cell::new(0);
        let mut predict = |latents: &Tensor, timestep: f64| -> Result<Tensor, E> {
            let prediction = match &both {
                None => self.predict(latents, timestep, conditioning)?,
                Some(both) => {
                    let doubled = Tensor::cat(&[latents, latents], 0)?;
                    let halves = self.predict(&doubled, timestep, both)?.chunk(2, 0)?;
                    let (without, with) = (&halves[0], &halves[1]);
                    (without + ((with - without)? * self.guidance_scale)?)?
                }
            };
            if let Some((row, found)) = first_not_finite(&prediction)? {
                let (step, prompt) = (step.get(), prompts[row].to_owned());
                return Err(SampleError::NotFinite { found, step, steps, timestep, prompt }.into());
            }
            Ok(prediction)
        };
        let mut observe = |leg: usize, latents: &Tensor| {
            step.set(leg + 1);
            observe(Visit { leg, timestep: path.legs[leg].timestep, latents })
        };
        let mut fresh = |leg| noise.fresh(leg);
        let (initial, prediction) = (noise.initial()?, self.schedule.prediction());
        integrate(self.sampler, &path, prediction, &initial, &mut fresh, &mut predict, &mut observe)
    }

    /// One forward pass; input and output are f32, regardless of the model's type.
    fn predict(&self, latents: &Tensor, timestep: f64, texts: &Conditioning) -> candle_core::Result<Tensor> {
        let timesteps = Tensor::full(timestep as f32, latents.dim(0)?, latents.device())?;
        self.unet.forward(latents, &timesteps, texts)?.to_dtype(DType::F32)
    }
}

/// Fails if the U-Net needs other input channels besides latents.
pub fn check_inputs(config: &UNetConfig) -> Result<(), SampleError> {
    let UNetConfig { in_channels: inputs, out_channels: outputs, .. } = *config;
    if inputs == outputs { Ok(()) } else { Err(SampleError::InputChannels { inputs, outputs }) }
}
