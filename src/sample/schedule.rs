//! The noise schedule: how much of a training sample is signal and how much is noise at each timestep.
//! Ho et al. 2020 (DDPM) for the products of alphas; `scaled_linear` is latent diffusion's. Lin et al. 2023, "Common
//! Diffusion Noise Schedules and Sample Steps are Flawed", for schedules that end in pure noise.

use std::path::Path;

use candle_core::{DType, Tensor};

use super::config::Config;
use super::{SampleError, Spacing};
use crate::base::files;
use crate::model::Prediction;

/// Stands for the signal's variance at the last timestep of a schedule that ends in pure noise, in samplers that divide
/// by it. diffusers has the same number, the least above 0 in f16.
const LEAST_ALPHA_CUMPROD: f64 = 1.0 / (1 << 24) as f64;

/// The noise schedule a model was trained with, from its `scheduler_config.json`.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
    prediction: Prediction,
    spacing: Option<Spacing>,
    steps_offset: usize,
    set_alpha_to_one: Option<bool>,
}

/// Amplitudes at one noise level: `x = alpha * x0 + sigma * noise`, with alpha² + sigma² = 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Amplitude of the clean latents.
    pub alpha: f64,
    /// Amplitude of the noise.
    pub sigma: f64,
}

impl NoiseSchedule {
    /// Reads `scheduler_config.json` of any scheduler class: the class determines the sampler, which can be chosen
    /// freely, whereas the betas and the prediction type belong to the model.
    pub fn open(path: &Path) -> Result<Self, SampleError> {
        let config: serde_json::Value = files::read_json(path)
            .map_err(|source| SampleError::ConfigFile { path: path.to_owned(), source })?;
        Self::from_config(&config)
    }

    /// The schedule of a parsed `scheduler_config.json`.
    pub fn from_config(config: &serde_json::Value) -> Result<Self, SampleError> {
        let config = Config::parse(config)?;
        let mut alphas_cumprod: Vec<f64> = config
            .betas()?
            .into_iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        if config.rescale_betas_zero_snr {
            remove_terminal_signal(&mut alphas_cumprod);
        }
        Ok(Self {
            alphas_cumprod,
            prediction: config.prediction()?,
            spacing: config.timestep_spacing,
            steps_offset: config.steps_offset,
            set_alpha_to_one: config.set_alpha_to_one,
        })
    }

    /// Number of timesteps the model was trained with.
    pub fn train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The product of (1 - beta) up to each timestep: the signal's fraction of the variance.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// Weights of a training loss at these timesteps by min-SNR (Hang et al. 2023, as diffusers' training scripts compute
    /// it): min(SNR, gamma) / SNR, and for the velocity min(SNR, gamma) / (SNR + 1).
    pub fn min_snr_weights(&self, timesteps: &[i64], gamma: f64) -> Vec<f32> {
        let weight = |timestep: &i64| {
            let signal = self.alphas_cumprod[*timestep as usize];
            let bounded = gamma * (1.0 - signal);
            match self.prediction {
                Prediction::Epsilon => (bounded / signal).min(1.0) as f32,
                Prediction::VPrediction => bounded.min(signal) as f32,
            }
        };
        timesteps.iter().map(weight).collect()
    }

    /// The U-Net's prediction type.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The config's spacing, or the sampler's own default if the config has none.
    pub(super) fn spacing_or(&self, default: Spacing) -> Spacing {
        self.spacing.unwrap_or(default)
    }

    /// The config's `steps_offset`.
    pub(super) fn steps_offset(&self) -> usize {
        self.steps_offset
    }

    /// The level below timestep 0: no noise, or that of timestep 0 (`set_alpha_to_one: false`, as in SD v1.5).
    /// `alpha_to_one` is the sampler's own default, used if the config has none.
    pub(super) fn final_level_or(&self, alpha_to_one: bool) -> Level {
        if self.set_alpha_to_one.unwrap_or(alpha_to_one) { Level::CLEAN } else { self.level(0.0) }
    }

    /// Whether nothing is left of the signal at the last timestep (`rescale_betas_zero_snr`).
    pub fn ends_in_pure_noise(&self) -> bool {
        self.alphas_cumprod.last() == Some(&0.0)
    }

    /// The level at a timestep; between two timesteps sigma/alpha is interpolated, as in diffusers' Euler.
    pub fn level(&self, timestep: f64) -> Level {
        let last = self.alphas_cumprod.len() - 1;
        match self.ends_in_pure_noise() && timestep >= last as f64 {
            true => Level::PURE_NOISE,
            false => self.level_with_signal(timestep),
        }
    }

    /// Like [`Self::level`], with a trace of signal at the end of a schedule that ends in pure noise. Samplers that
    /// divide by the signal, or take its logarithm, start there.
    pub(super) fn level_with_signal(&self, timestep: f64) -> Level {
        let last = self.alphas_cumprod.len() - 1;
        let timestep = timestep.clamp(0.0, last as f64);
        let below = timestep.floor() as usize;
        let fraction = timestep - below as f64;
        let ratio = |index: usize| match self.alphas_cumprod[index.min(last)] {
            0.0 => (1.0 / LEAST_ALPHA_CUMPROD - 1.0).sqrt(),
            alpha_cumprod => (1.0 / alpha_cumprod - 1.0).sqrt(),
        };
        Level::from_ratio(ratio(below) * (1.0 - fraction) + ratio(below + 1) * fraction)
    }

    /// `alpha * latents + sigma * noise` at each sample's own timestep.
    /// `latents` and `noise`: [b, c, h, w]; `timestep`: `[b]` i64.
    pub fn add_noise(
        &self,
        latents: &Tensor,
        noise: &Tensor,
        timestep: &Tensor,
    ) -> Result<Tensor, SampleError> {
        let (alpha, sigma) = self.amplitudes(timestep, latents)?;
        Ok((latents.broadcast_mul(&alpha)? + noise.broadcast_mul(&sigma)?)?)
    }

    /// The noise in `sample` if its clean latents are `latents`: the inverse of [`Self::add_noise`].
    pub fn noise_in(
        &self,
        sample: &Tensor,
        latents: &Tensor,
        timestep: &Tensor,
    ) -> Result<Tensor, SampleError> {
        let (alpha, sigma) = self.amplitudes(timestep, sample)?;
        Ok((sample - latents.broadcast_mul(&alpha)?)?.broadcast_div(&sigma)?)
    }

    /// The clean latents in `sample` if its noise is `noise`: the other inverse of [`Self::add_noise`]. Impossible where
    /// no signal is left.
    pub fn latents_in(
        &self,
        sample: &Tensor,
        noise: &Tensor,
        timestep: &Tensor,
    ) -> Result<Tensor, SampleError> {
        let (alpha, sigma) = self.amplitudes(timestep, sample)?;
        self.require_signal(timestep)?;
        Ok((sample - noise.broadcast_mul(&sigma)?)?.broadcast_div(&alpha)?)
    }

    /// The training target of the U-Net for `latents` with this noise: the noise or the velocity.
    pub fn target(&self, latents: &Tensor, noise: &Tensor, timestep: &Tensor) -> Result<Tensor, SampleError> {
        if self.prediction == Prediction::Epsilon {
            return Ok(noise.clone());
        }
        let (alpha, sigma) = self.amplitudes(timestep, latents)?;
        Ok((noise.broadcast_mul(&alpha)? - latents.broadcast_mul(&sigma)?)?)
    }

    /// Like [`Self::target`], from the noisy latents instead of the clean ones. Impossible where no signal is left.
    pub fn target_in(
        &self,
        sample: &Tensor,
        noise: &Tensor,
        timestep: &Tensor,
    ) -> Result<Tensor, SampleError> {
        if self.prediction == Prediction::Epsilon {
            return Ok(noise.clone());
        }
        // alpha * noise - sigma * x0 with x0 = (sample - sigma * noise) / alpha, and alpha² + sigma² = 1.
        let (alpha, sigma) = self.amplitudes(timestep, sample)?;
        self.require_signal(timestep)?;
        Ok((noise - sample.broadcast_mul(&sigma)?)?.broadcast_div(&alpha)?)
    }

    fn require_signal(&self, timestep: &Tensor) -> Result<(), SampleError> {
        let pure_noise = |found: &i64| self.level(*found as f64).alpha == 0.0;
        let timesteps = timestep.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        match timesteps.into_iter().enumerate().find(|(_, found)| pure_noise(found)) {
            Some((point, timestep)) => Err(SampleError::NoSignal { point, timestep }),
            None => Ok(()),
        }
    }

    /// Alpha and sigma of each timestep as [b, 1, 1, 1], with the dtype and on the device of `like`.
    fn amplitudes(&self, timestep: &Tensor, like: &Tensor) -> Result<(Tensor, Tensor), SampleError> {
        let last = self.alphas_cumprod.len() - 1;
        let timesteps = timestep.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        let levels: Vec<Level> = timesteps
            .into_iter()
            .map(|found| match usize::try_from(found) {
                Ok(index) if index <= last => Ok(self.level(index as f64)),
                _ => Err(SampleError::Timestep { found, last }),
            })
            .collect::<Result<_, _>>()?;
        let column = |pick: fn(&Level) -> f64| -> candle_core::Result<Tensor> {
            let values: Vec<f32> = levels.iter().map(|level| pick(level) as f32).collect();
            Tensor::from_vec(values, (levels.len(), 1, 1, 1), like.device())?.to_dtype(like.dtype())
        };
        Ok((column(|level| level.alpha)?, column(|level| level.sigma)?))
    }
}

/// Shifts and scales the square roots of the products so that the last is 0 and the first is unchanged. Lin et al.,
/// algorithm 1.
fn remove_terminal_signal(alphas_cumprod: &mut [f64]) {
    let (first, last) = match &*alphas_cumprod {
        [first, .., last] => (first.sqrt(), last.sqrt()),
        _ => return,
    };
    for alpha_cumprod in alphas_cumprod {
        *alpha_cumprod = ((alpha_cumprod.sqrt() - last) * first / (first - last)).powi(2);
    }
}

impl Level {
    /// The level without noise.
    pub const CLEAN: Self = Self { alpha: 1.0, sigma: 0.0 };

    /// The level without signal.
    pub const PURE_NOISE: Self = Self { alpha: 0.0, sigma: 1.0 };

    /// The level at which sigma / alpha is `ratio`, which k-diffusion and diffusers' Euler call sigma.
    pub fn from_ratio(ratio: f64) -> Self {
        let alpha = 1.0 / (1.0 + ratio * ratio).sqrt();
        Self { alpha, sigma: ratio * alpha }
    }

    /// Sigma / alpha, the inverse of [`Self::from_ratio`].
    pub fn ratio(&self) -> f64 {
        self.sigma / self.alpha
    }

    /// The DPM-Solver papers' lambda, half the logarithm of the signal-to-noise ratio.
    pub fn lambda(&self) -> f64 {
        (self.alpha / self.sigma).ln()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use serde_json::json;

    use super::*;

    fn schedule(prediction_type: &str) -> Result<NoiseSchedule, SampleError> {
        NoiseSchedule::from_config(&json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": prediction_type,
        }))
    }

    #[test]
    fn stable_diffusion_keeps_half_a_percent_of_the_signal() -> Result<(), SampleError> {
        let schedule = schedule("epsilon")?;
        assert_eq!(schedule.train_timesteps(), 1000);
        // The well-known ends of SD's alphas_cumprod, 0.99915 and 0.0047.
        assert!((schedule.alphas_cumprod()[0] - 0.99915).abs() < 1e-7);
        assert!((schedule.alphas_cumprod()[999] - 0.0047).abs() < 5e-5);
        let level = schedule.level(500.0);
        assert!((level.alpha.powi(2) - schedule.alphas_cumprod()[500]).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn added_noise_can_be_recovered() -> Result<(), SampleError> {
        let schedule = schedule("v_prediction")?;
        let latents = Tensor::new(&[[[[1f32, -2.0]]], [[[0.5, 3.0]]]], &Device::Cpu)?;
        let noise = Tensor::new(&[[[[0.3f32, 1.0]]], [[[-1.0, 0.0]]]], &Device::Cpu)?;
        let timestep = Tensor::new(&[10i64, 900], &Device::Cpu)?;
        let sample = schedule.add_noise(&latents, &noise, &timestep)?;
        let far = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        assert!(far(&schedule.noise_in(&sample, &latents, &timestep)?, &noise)? < 1e-5);

        let velocity = schedule.target_in(&sample, &noise, &timestep)?;
        assert!(far(&velocity, &schedule.target(&latents, &noise, &timestep)?)? < 1e-5);
        for (row, t) in [10.0, 900.0].into_iter().enumerate() {
            let Level { alpha, sigma } = schedule.level(t);
            let expected = ((noise.get(row)? * alpha)? - (latents.get(row)? * sigma)?)?;
            assert!(far(&velocity.get(row)?, &expected)? < 1e-5);
        }
        Ok(())
    }

    #[test]
    fn a_timestep_outside_the_schedule_is_an_error() -> Result<(), SampleError> {
        let zeros = Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu)?;
        for found in [-1i64, 1000] {
            let timestep = Tensor::new(&[found], &Device::Cpu)?;
            let error = schedule("epsilon")?.add_noise(&zeros, &zeros, &timestep).expect_err("out of range");
            assert!(matches!(error, SampleError::Timestep { last: 999, .. }));
        }
        Ok(())
    }

    #[test]
    fn little_noise_has_little_weight() -> Result<(), SampleError> {
        let gamma = 5.0;
        for prediction in ["epsilon", "v_prediction"] {
            let schedule = schedule(prediction)?;
            let weights = schedule.min_snr_weights(&(0..1000).collect::<Vec<_>>(), gamma);
            for (weight, signal) in weights.into_iter().zip(schedule.alphas_cumprod()) {
                let snr = signal / (1.0 - signal);
                let divisor = if prediction == "epsilon" { snr } else { snr + 1.0 };
                assert!((f64::from(weight) - snr.min(gamma) / divisor).abs() < 1e-6, "{prediction} {snr}");
            }
        }
        Ok(())
    }
}
