//! The loop that all samplers share: evaluate, convert the prediction to clean latents, combine.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::path::{Leg, Path};
use super::{Level, NoiseSchedule, Prediction, SampleError, Sampler};

/// Number of predictions that are kept, including the current one: the length of the longest
/// [`super::Weights::predictions`], PNDM's.
const MEMORY: usize = 5;

impl Path {
    /// The sampler's path; an error if the schedule does not have enough timesteps.
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
}

/// Turns the standard normal noise `initial` [b, c, h, w] into clean latents.
///
/// `predict` is the model: latents and timestep to prediction. `observe` sees the latents and the leg's index before
/// each evaluation, and can stop the walk by returning an error. `fresh` is called for a leg's noise if its weight is
/// not 0.
pub fn integrate<E: From<candle_core::Error>>(
    sampler: &dyn Sampler,
    path: &Path,
    prediction: Prediction,
    initial: &Tensor,
    fresh: &mut dyn FnMut(usize) -> candle_core::Result<Tensor>,
    predict: &mut dyn FnMut(&Tensor, f64) -> Result<Tensor, E>,
    observe: &mut dyn FnMut(usize, &Tensor) -> Result<(), E>,
) -> Result<Tensor, E> {
    let mut latents = (initial * path.initial_scale)?;
    let mut start = latents.clone();
    let mut predictions = VecDeque::new();
    let mut previous_clean: Option<Tensor> = None;
    for (index, leg) in path.legs.iter().enumerate() {
        observe(index, &latents)?;
        predictions.push_front(predict(&latents, leg.timestep)?);
        predictions.truncate(MEMORY);
        if !leg.again {
            start = latents;
        }
        let weights = sampler.weights(&path.legs, index);
        let predicted = combine(weights.predictions, &predictions)?;
        let clean = clean_latents(prediction, leg.from, &start, &predicted)?;
        let mut next = ((&start * weights.latents)? + (&clean * weights.clean)?)?;
        if let Some(previous) = previous_clean.filter(|_| weights.previous_clean != 0.0) {
            next = (next + (previous * weights.previous_clean)?)?;
        }
        if weights.noise != 0.0 {
            next = (next + (fresh(index)? * weights.noise)?)?;
        }
        previous_clean = Some(clean);
        latents = next;
    }
    Ok(latents)
}

/// The weighted sum of `tensors`, which must not be empty.
fn combine(weights: &[f64], tensors: &VecDeque<Tensor>) -> candle_core::Result<Tensor> {
    let first = (&tensors[0] * weights[0])?;
    let others = weights.iter().zip(tensors).skip(1).filter(|&(&weight, _)| weight != 0.0);
    others.into_iter().try_fold(first, |sum, (&weight, tensor)| sum + (tensor * weight)?)
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

    /// If the data were a single point, the exact prediction would be known, and any sampler must find the point.
    #[test]
    fn every_sampler_finds_a_single_point() -> std::result::Result<(), SampleError> {
        let target = Tensor::new(&[[[[0.7f32, -1.3]]]], &Device::Cpu)?;
        let noise = Tensor::new(&[[[[0.4f32, 1.9]]]], &Device::Cpu)?;
        for prediction in ["epsilon", "v_prediction"] {
            let schedule = NoiseSchedule::from_config(&json!({
                "beta_schedule": "scaled_linear", "prediction_type": prediction, "set_alpha_to_one": true
            }))?;
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
                let found = integrate(
                    sampler,
                    &path,
                    schedule.prediction(),
                    &noise,
                    &mut |_| noise.ones_like(),
                    &mut predict,
                    &mut |_, _| Ok(()),
                )?;
                let far = (found - &target)?.abs()?.max_all()?.to_scalar::<f32>()?;
                // Division by the smallest alpha, about 0.006 here, amplifies f32 rounding. Like diffusers, PNDM adds
                // velocities of several noise levels: this converges with small steps, but here there are only seven.
                let exact = sampler.name() != "pndm" || prediction == "epsilon";
                assert!(far < if exact { 1e-4 } else { 0.1 }, "{} {prediction}: {far}", sampler.name());
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
            let repeated = usize::from(sampler.name() == "pndm");
            assert_eq!(Path::new(sampler, &schedule, 20)?.legs.len(), 20 + repeated);
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
            &mut |_| noise.zeros_like(),
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
