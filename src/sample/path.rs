//! The walk that all samplers share: evaluate, turn the prediction into clean latents, combine.

use candle_core::Tensor;

use super::{Level, NoiseSchedule, Prediction, SampleError, Sampler};

/// One evaluation of the U-Net and the move that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// The timestep the U-Net is told.
    pub timestep: f64,
    /// The level the latents are taken to have.
    pub from: Level,
    /// The level they are brought to.
    pub to: Level,
}

/// All legs of one trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The legs, noisiest first.
    pub legs: Vec<Leg>,
    /// What standard normal noise is multiplied by to become the first latents.
    pub initial_scale: f64,
}

/// The next latents as a linear combination of what is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of the latents at the start of the leg.
    pub latents: f64,
    /// Of the clean latents predicted there.
    pub clean: f64,
    /// Of the clean latents predicted one leg earlier; 0 on the first leg.
    pub previous_clean: f64,
}

impl Path {
    /// The sampler's path, or an error when the schedule does not have that many timesteps for it.
    pub fn new(sampler: &dyn Sampler, schedule: &NoiseSchedule, steps: usize) -> Result<Self, SampleError> {
        let last = schedule.train_timesteps() - 1;
        let refusal = SampleError::Steps { sampler: sampler.name(), steps, last };
        if steps == 0 || steps > last {
            return Err(refusal);
        }
        let path = sampler.path(schedule, steps);
        let inside = |leg: &Leg| (0.0..=last as f64).contains(&leg.timestep);
        if path.legs.iter().all(inside) { Ok(path) } else { Err(refusal) }
    }

    /// Legs that each end where the next begins, the last one without noise.
    pub(super) fn chained(schedule: &NoiseSchedule, timesteps: &[f64]) -> Vec<Leg> {
        let levels: Vec<Level> = timesteps.iter().map(|&timestep| schedule.level(timestep)).collect();
        let ends = levels.iter().copied().skip(1).chain([Level::CLEAN]);
        let legs = timesteps.iter().zip(&levels).zip(ends);
        legs.map(|((&timestep, &from), to)| Leg { timestep, from, to }).collect()
    }
}

impl Weights {
    /// The first-order step, DDIM's: keep the predicted clean latents and the predicted noise, change their
    /// amplitudes. Song et al. 2021, equation 12 with eta 0, the noise written as `(x - alpha * x0) / sigma`.
    pub(super) fn first_order(leg: &Leg) -> Self {
        let shrink = leg.to.sigma / leg.from.sigma;
        Self { latents: shrink, clean: leg.to.alpha - leg.from.alpha * shrink, previous_clean: 0.0 }
    }
}

/// Brings standard normal `noise` [b, c, h, w] to clean latents.
///
/// `predict` is the model: latents and timestep to prediction. `observe` sees the latents before each evaluation with
/// the leg's index, and may stop the walk by an error.
pub fn integrate<E: From<candle_core::Error>>(
    sampler: &dyn Sampler,
    path: &Path,
    prediction: Prediction,
    noise: &Tensor,
    predict: &mut dyn FnMut(&Tensor, f64) -> Result<Tensor, E>,
    observe: &mut dyn FnMut(usize, &Tensor) -> Result<(), E>,
) -> Result<Tensor, E> {
    let mut latents = (noise * path.initial_scale)?;
    let mut previous_clean: Option<Tensor> = None;
    for (index, leg) in path.legs.iter().enumerate() {
        observe(index, &latents)?;
        let clean = clean_latents(prediction, leg.from, &latents, &predict(&latents, leg.timestep)?)?;
        let weights = sampler.weights(&path.legs, index);
        let mut next = ((&latents * weights.latents)? + (&clean * weights.clean)?)?;
        if let Some(previous) = previous_clean.filter(|_| weights.previous_clean != 0.0) {
            next = (next + (previous * weights.previous_clean)?)?;
        }
        previous_clean = Some(clean);
        latents = next;
    }
    Ok(latents)
}

fn clean_latents(
    prediction: Prediction,
    level: Level,
    latents: &Tensor,
    predicted: &Tensor,
) -> candle_core::Result<Tensor> {
    let Level { alpha, sigma } = level;
    match prediction {
        Prediction::Epsilon => (latents - (predicted * sigma)?)? / alpha,
        Prediction::VPrediction => (latents * alpha)? - (predicted * sigma)?,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};
    use serde_json::json;

    use super::*;
    use crate::sample::SAMPLERS;

    /// If the data were one single point, the right prediction would be known, and any sampler must find the point.
    #[test]
    fn every_sampler_finds_a_single_point() -> std::result::Result<(), SampleError> {
        let target = Tensor::new(&[[[[0.7f32, -1.3]]]], &Device::Cpu)?;
        let noise = Tensor::new(&[[[[0.4f32, 1.9]]]], &Device::Cpu)?;
        for prediction in ["epsilon", "v_prediction"] {
            let schedule = NoiseSchedule::from_config(
                &json!({ "beta_schedule": "scaled_linear", "prediction_type": prediction }),
            )?;
            for &sampler in SAMPLERS {
                let path = Path::new(sampler, &schedule, 7)?;
                let mut predict = |latents: &Tensor, timestep: f64| -> Result<Tensor> {
                    let Level { alpha, sigma } = schedule.level(timestep);
                    let epsilon = ((latents - (&target * alpha)?)? / sigma)?;
                    match schedule.prediction() {
                        Prediction::Epsilon => Ok(epsilon),
                        Prediction::VPrediction => (epsilon * alpha)? - (&target * sigma)?,
                    }
                };
                let found =
                    integrate(sampler, &path, schedule.prediction(), &noise, &mut predict, &mut |_, _| {
                        Ok(())
                    })?;
                let far = (found - &target)?.abs()?.max_all()?.to_scalar::<f32>()?;
                // Division by the smallest alpha, about 0.006 here, magnifies f32 rounding.
                assert!(far < 1e-4, "{} {prediction}: {far}", sampler.name());
            }
        }
        Ok(())
    }

    #[test]
    fn too_many_steps_are_an_error() -> std::result::Result<(), SampleError> {
        let schedule =
            NoiseSchedule::from_config(&json!({ "steps_offset": 1, "timestep_spacing": "leading" }))?;
        for &sampler in SAMPLERS {
            assert!(Path::new(sampler, &schedule, 0).is_err());
            assert!(Path::new(sampler, &schedule, 1000).is_err());
            assert_eq!(Path::new(sampler, &schedule, 20)?.legs.len(), 20);
        }
        Ok(())
    }

    #[test]
    fn an_observer_can_stop_the_walk() -> std::result::Result<(), SampleError> {
        let schedule = NoiseSchedule::from_config(&json!({}))?;
        let path = Path::new(SAMPLERS[0], &schedule, 5)?;
        let noise = Tensor::zeros((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu)?;
        let mut seen = 0;
        let stopped: Result<Tensor> = integrate(
            SAMPLERS[0],
            &path,
            Prediction::Epsilon,
            &noise,
            &mut |latents, _| Ok(latents.clone()),
            &mut |index, _| {
                seen = index;
                if index == 2 { Err(candle_core::Error::Msg("enough".into())) } else { Ok(()) }
            },
        );
        assert!(stopped.is_err());
        assert_eq!(seen, 2);
        Ok(())
    }
}
