//! Captioned pictures as latents: one source of calibration points.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::RngExt;

use super::encode_files::SampleFiles;
use super::order::spread;
use super::samples::{Rules, tell_skipped};
use super::{Calibration, DataError, Encoder, Points};
use crate::backend::Random;
use crate::base::Progress;
use crate::model::network::Conditioning;
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
    /// Encodes the pictures of a list.
    pub fn from_pictures(
        files: &SampleFiles<'_>,
        rules: Rules,
        encoder: &Encoder,
        progress: &dyn Progress,
    ) -> Result<Self, DataError> {
        let (list, interrupt) = (files.list, files.interrupt);
        encoder.note_truncated(list.captions.iter().map(String::as_str), progress)?;
        progress.length(list.samples.len() as u64, "pictures");
        let wanted: Vec<usize> = (0..list.samples.len()).collect();
        let mut position = 0;
        let rows = files.encode(&wanted, |next| {
            next(wanted.len(), &mut || {
                position += 1;
                progress.position(position);
            })
        })?;
        let skipped: Vec<_> = rows.iter().filter_map(|row| row.record.as_left_out()).collect();
        rules.check_skipped(&skipped, rows.len())?;
        tell_skipped(&skipped, rows.len(), progress);
        let rows: Vec<_> = rows.into_iter().filter(|row| row.latents.is_some()).collect();
        let captions: Vec<String> = rows.iter().map(|row| list.captions[row.caption].clone()).collect();
        let conditioning = encoder.encode_all(&captions, progress, interrupt)?;
        // Points stay on the host.
        let (conditioning, device) = (conditioning.to_device(&Device::Cpu)?, &Device::Cpu);
        let latents: Vec<_> = rows.iter().filter_map(|row| row.latents.as_ref()).collect();
        let sizes: Vec<Vec<f32>> = rows.iter().filter_map(|row| Some(row.sizes?.to_vec())).collect();
        let time_ids = match conditioning.time_ids {
            Some(_) => Some(Tensor::new(sizes, device)?),
            None => None,
        };
        Ok(Self {
            latents: Tensor::stack(&latents, 0)?.to_device(device)?,
            conditioning: Conditioning { time_ids, ..conditioning },
            captions,
        })
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

#[cfg(test)]
mod tests {
    use candle_core::Device;
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
