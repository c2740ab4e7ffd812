//! Captioned pictures as latents: one source of calibration points.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::RngExt;

use super::finite::check_result;
use super::order::spread;
use super::{Calibration, DataError, Encoder, Points, pictures};
use crate::backend::Random;
use crate::base::{Interrupt, Progress};
use crate::model::Part;
use crate::model::network::Conditioning;
use crate::model::vae::Autoencoder;
use crate::sample::NoiseSchedule;

/// N captioned pictures.
#[derive(Clone, Debug)]
pub struct Captioned {
    /// The autoencoder's latents, of about unit variance, [N, channels, h, w] f32.
    pub latents: Tensor,
    /// Their captions, encoded.
    pub conditioning: Conditioning,
    /// Their captions.
    pub captions: Vec<String>,
}

impl Captioned {
    /// Encodes the pictures of a folder, cropped to `size` (height, width) pixels, `batch` at a time.
    pub fn from_pictures(
        folder: &Path,
        size: (usize, usize),
        vae: &Autoencoder,
        encoder: &Encoder,
        batch: usize,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Self, DataError> {
        let listed = pictures::list(folder)?;
        let captions: Vec<String> = listed.iter().map(|file| file.caption.clone()).collect();
        encoder.note_truncated(captions.iter().map(String::as_str), progress)?;
        let conditioning = encoder.encode_all(&captions, progress, interrupt)?;
        let device = conditioning.encoder_hidden_states.device();
        progress.length(listed.len() as u64, "pictures");
        let mut latents = Vec::new();
        let mut done = 0;
        for chunk in listed.chunks(batch.max(1)) {
            interrupt.check()?;
            let paths = chunk.iter().map(|file| file.path.as_path());
            latents.push(encode_pictures(paths, size, vae, device)?);
            done += chunk.len();
            progress.position(done as u64);
        }
        Ok(Self { latents: Tensor::cat(&latents, 0)?, conditioning, captions })
    }

    /// `samples` points: the pictures in turn, with noise added at timesteps that cover the schedule evenly from a
    /// random start.
    pub fn points(
        &self,
        schedule: &NoiseSchedule,
        samples: usize,
        random: &Random,
    ) -> Result<Points, DataError> {
        let device = self.latents.device();
        let (pictures, channels, height, width) = self.latents.dims4()?;
        let chosen: Vec<u32> = (0..samples).map(|sample| (sample % pictures) as u32).collect();
        let offset: f64 = random.stream("timestep", 0).random();
        let timesteps: Vec<i64> = (0..samples)
            .map(|sample| (spread(sample, offset) * schedule.train_timesteps() as f64) as i64)
            .collect();
        let noises: Vec<Tensor> = (0..samples)
            .map(|sample| random.normal("noise", sample as u64, &[1, channels, height, width], device))
            .collect::<candle_core::Result<_>>()?;

        let prompts = chosen.iter().map(|&picture| self.captions[picture as usize].clone()).collect();
        let chosen = Tensor::new(chosen, device)?;
        let latents = self.latents.to_dtype(DType::F32)?.index_select(&chosen, 0)?;
        let Conditioning { encoder_hidden_states, text_embeds, time_ids } =
            self.conditioning.to_dtype(DType::F32)?.select(&chosen)?;
        let noise = Tensor::cat(&noises, 0)?;
        let timestep = Tensor::new(timesteps, device)?;
        let calibration = Calibration {
            sample: schedule.add_noise(&latents, &noise, &timestep)?,
            noise,
            latents: schedule.ends_in_pure_noise().then_some(latents),
            timestep,
            encoder_hidden_states,
            text_embeds,
            time_ids,
        };
        calibration.check(Path::new("the points drawn from pictures"))?;
        Ok(Points { calibration, prompts })
    }
}

/// The latents of pictures, cropped to `size` (height, width) pixels, in f32.
pub(super) fn encode_pictures<'a>(
    paths: impl Iterator<Item = &'a Path>,
    (height, width): (usize, usize),
    vae: &Autoencoder,
    device: &Device,
) -> Result<Tensor, DataError> {
    let tensor = |path: &Path| -> Result<Tensor, DataError> {
        Ok(pictures::to_tensor(&pictures::fit(&pictures::read(path)?, height, width), device)?)
    };
    let paths: Vec<&Path> = paths.collect();
    let tensors = paths.iter().map(|path| tensor(path)).collect::<Result<Vec<_>, _>>()?;
    let latents = vae.encode(&Tensor::stack(&tensors, 0)?)?.to_dtype(DType::F32)?;
    check_result(Part::Vae, &latents, |row| format!("the picture {}", paths[row].display()))?;
    Ok(latents)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn points_hold_their_noise() -> Result<(), DataError> {
        let captioned = Captioned {
            latents: Tensor::new(&[[[[1f32, 2.0]]], [[[3.0, 4.0]]]], &Device::Cpu)?,
            conditioning: Conditioning {
                encoder_hidden_states: Tensor::ones((2, 3, 4), DType::F32, &Device::Cpu)?,
                text_embeds: None,
                time_ids: None,
            },
            captions: vec!["one".to_owned(), "two".to_owned()],
        };
        let schedule = NoiseSchedule::from_config(&json!({ "beta_schedule": "scaled_linear" }))?;
        let Points { calibration, prompts } = captioned.points(&schedule, 5, &Random::new(1, "points"))?;
        assert_eq!(prompts, ["one", "two", "one", "two", "one"]);
        let chosen = Tensor::new(&[0u32, 1, 0, 1, 0], &Device::Cpu)?;
        let latents = captioned.latents.index_select(&chosen, 0)?;
        let noise = schedule.noise_in(&calibration.sample, &latents, &calibration.timestep)?;
        let far = (noise - &calibration.noise)?.abs()?.max_all()?.to_scalar::<f32>()?;
        // Division by the smallest sigma, 0.03, magnifies f32 rounding.
        assert!(far < 1e-4, "{far}");
        let again = captioned.points(&schedule, 5, &Random::new(1, "points"))?.calibration;
        assert_eq!(again.timestep.to_vec1::<i64>()?, calibration.timestep.to_vec1::<i64>()?);
        Ok(())
    }
}
