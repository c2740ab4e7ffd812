//! What a U-Net should predict at calibration points, and the clean latents behind them.

use candle_core::Tensor;

use super::Calibration;
use crate::sample::{NoiseSchedule, SampleError};

impl Calibration {
    /// The training target of the U-Net, in the shape of `noise`.
    pub fn target(&self, schedule: &NoiseSchedule) -> Result<Tensor, SampleError> {
        match &self.latents {
            Some(latents) => schedule.target(latents, &self.noise, &self.timestep),
            None => schedule.target_in(&self.noisy()?, &self.noise, &self.timestep),
        }
    }

    /// The clean latents: the given ones, or those that follow from the noisy latents.
    pub fn clean(&self, schedule: &NoiseSchedule) -> Result<Tensor, SampleError> {
        match &self.latents {
            Some(latents) => Ok(latents.clone()),
            None => schedule.latents_in(&self.noisy()?, &self.noise, &self.timestep),
        }
    }

    /// The channels of `sample` that hold noisy latents.
    fn noisy(&self) -> candle_core::Result<Tensor> {
        self.sample.narrow(1, 0, self.noise.dim(1)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device};

    use super::*;

    fn points() -> candle_core::Result<Calibration> {
        let values = Tensor::arange(0f32, 32.0, &Device::Cpu)?.reshape((2, 4, 2, 2))?;
        Ok(Calibration {
            sample: (&values / 7.0)?,
            noise: (&values / 9.0)?,
            latents: Some((&values / 11.0)?),
            timestep: Tensor::new(&[3i64, 999], &Device::Cpu)?,
            encoder_hidden_states: Tensor::zeros((2, 3, 5), DType::F32, &Device::Cpu)?,
            text_embeds: None,
            time_ids: None,
        })
    }

    #[test]
    fn other_channels_of_the_sample_have_no_noise() -> Result<(), Box<dyn std::error::Error>> {
        let schedule = |keys| NoiseSchedule::from_config(&serde_json::json!({ "prediction_type": keys }));
        let narrow = points()?;
        let others = Tensor::full(1e9f32, (2, 5, 2, 2), &Device::Cpu)?;
        let wide = Calibration {
            sample: Tensor::cat(&[&narrow.sample, &others], 1)?,
            latents: None,
            ..narrow.clone()
        };
        let narrow = Calibration { latents: None, ..narrow };
        wide.check(Path::new("wide"))?;
        for prediction in ["epsilon", "v_prediction"] {
            let schedule = schedule(prediction)?;
            let same = |pick: fn(&Calibration, &NoiseSchedule) -> Result<Tensor, SampleError>| {
                let values = |points| -> Result<Vec<f32>, SampleError> {
                    Ok(pick(points, &schedule)?.flatten_all()?.to_vec1()?)
                };
                Ok::<_, SampleError>(values(&wide)? == values(&narrow)?)
            };
            assert!(same(Calibration::target)? && same(Calibration::clean)?, "{prediction}");
        }
        Ok(())
    }

    /// At the last timestep the sample is the noise alone, so only clean latents tell the velocity.
    #[test]
    fn pure_noise_needs_its_latents() -> Result<(), Box<dyn std::error::Error>> {
        let schedule = NoiseSchedule::from_config(&serde_json::json!({
            "prediction_type": "v_prediction", "rescale_betas_zero_snr": true,
        }))?;
        let with = points()?;
        let last = |tensor: Tensor| tensor.get(1)?.flatten_all()?.to_vec1::<f32>();
        let latents = with.latents.clone().expect("just made");
        assert_eq!(last(with.target(&schedule)?)?, last(latents.neg()?)?);
        assert_eq!(last(with.clean(&schedule)?)?, last(latents)?);
        let without = Calibration { latents: None, ..with };
        for refused in [without.target(&schedule), without.clean(&schedule)] {
            let error = refused.expect_err("nothing tells the latents");
            assert!(matches!(error, SampleError::NoSignal { point: 1, timestep: 999 }), "{error}");
        }
        Ok(())
    }
}
