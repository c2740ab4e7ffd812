//! The samplers against trajectories of diffusers 0.42.1 (`tests/golden_sample/trajectories.py`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Result, Tensor};
use laptop_diff::sample::{self, NoiseSchedule, SAMPLERS, Sampler};

/// Both sides compute latents in f32, which agree to 1.5e-6 of the largest element. The exception is a single step of
/// either Euler from timestep 0 (`linspace`): there diffusers' f32 loses digits in `1 - alphas_cumprod`, up to 8.3e-5.
/// Measured 2026-11-25 on a Xeon.
const TOLERANCE: f32 = 1e-4;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_sample").join(file)
}

#[test]
fn samplers_follow_diffusers() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let expected = candle_core::safetensors::load(golden("trajectories.safetensors"), &Device::Cpu)?;
    let configs: HashMap<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(golden("configs.json"))?)?;
    let mut compared = 0;
    for (config_name, config) in &configs {
        let schedule = NoiseSchedule::from_config(config)?;
        // diffusers' PNDM ignores `rescale_betas_zero_snr`.
        let known = |sampler: &&&dyn Sampler| !(schedule.ends_in_pure_noise() && sampler.name() == "pndm");
        for &sampler in SAMPLERS.iter().filter(known) {
            for steps in [1, 4, 20, 30] {
                let name = format!("{config_name}/{}/{steps}", sampler.name());
                let path = sample::Path::new(sampler, &schedule, steps)?;
                let timesteps: Vec<f32> = path.legs.iter().map(|leg| leg.timestep as f32).collect();
                let expected_timesteps = expected[&format!("{name}.timesteps")].to_vec1::<f32>()?;
                for (ours, theirs) in timesteps.iter().zip(&expected_timesteps) {
                    assert!(
                        (ours - theirs).abs() < 1e-3,
                        "{name}: {timesteps:?}, not {expected_timesteps:?}"
                    );
                }
                assert_eq!(timesteps.len(), expected_timesteps.len(), "{name}");

                let mut inputs = Vec::new();
                let last = sample::integrate(
                    sampler,
                    &path,
                    schedule.prediction(),
                    &expected["noise"],
                    &mut |leg| expected["fresh"].get(leg),
                    &mut |latents, timestep| -> Result<Tensor> {
                        (latents * 0.3)? + (timestep / 100.0).sin()
                    },
                    &mut |_, latents| {
                        inputs.push(latents.clone());
                        Ok(())
                    },
                )?;
                inputs.push(last);
                let far =
                    relative_distance(&Tensor::stack(&inputs, 0)?, &expected[&format!("{name}.inputs")])?;
                // diffusers' Euler steps on latents divided by alpha: from 2^-12 on, where one rounding of f32 is 2.4e-4.
                let rounded = schedule.ends_in_pure_noise() && sampler.name().starts_with("euler");
                assert!(far < if rounded { 1e-3 } else { TOLERANCE }, "{name} is off by {far}");
                compared += 1;
            }
        }
    }
    // Two tensors each, and two that all share.
    assert_eq!(2 * compared + 2, expected.len(), "every golden trajectory is compared");
    Ok(())
}

/// The largest difference as a part of the largest element.
fn relative_distance(ours: &Tensor, theirs: &Tensor) -> Result<f32> {
    assert_eq!(ours.dims(), theirs.dims());
    let largest = |tensor: &Tensor| tensor.abs()?.max_all()?.to_scalar::<f32>();
    Ok(largest(&(ours - theirs)?)? / largest(theirs)?)
}

/// Lin et al. 2023, algorithm 1: the first product stays, the last is 0, and with PNDM, which has no reference, a model
/// that predicts the true velocity still reaches its latents.
#[test]
fn a_schedule_may_end_in_pure_noise() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut keys = serde_json::json!({
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction", "timestep_spacing": "trailing", "set_alpha_to_one": true,
    });
    let usual = NoiseSchedule::from_config(&keys)?;
    keys["rescale_betas_zero_snr"] = true.into();
    let schedule = NoiseSchedule::from_config(&keys)?;
    assert!(schedule.ends_in_pure_noise() && !usual.ends_in_pure_noise());
    let (ours, theirs) = (schedule.alphas_cumprod(), usual.alphas_cumprod());
    assert!((ours[0] - theirs[0]).abs() < 1e-15 && ours[999] == 0.0, "{} {}", ours[0], ours[999]);
    assert!(ours.windows(2).all(|pair| pair[0] > pair[1]));

    let clean = Tensor::new(&[[[[0.7f32, -1.3]]]], &Device::Cpu)?;
    let initial = Tensor::new(&[[[[0.2f32, 1.1]]]], &Device::Cpu)?;
    for &sampler in SAMPLERS.iter().filter(|sampler| sampler.name() != "euler-ancestral") {
        let path = sample::Path::new(sampler, &schedule, 20)?;
        let mut leg = 0;
        let mut velocity = |latents: &Tensor, _: f64| -> Result<Tensor> {
            // PNDM tells twice of its second leg, from where the first one ends.
            let level = match path.legs[leg].again {
                true => path.legs[leg - 1].to,
                false => path.legs[leg].from,
            };
            leg += 1;
            let noise = ((latents - (&clean * level.alpha)?)? / level.sigma)?;
            (noise * level.alpha)? - (&clean * level.sigma)?
        };
        let prediction = schedule.prediction();
        let none = &mut |_| unreachable!("none of these adds noise");
        let last =
            sample::integrate(sampler, &path, prediction, &initial, none, &mut velocity, &mut |_, _| Ok(()))?;
        let far = relative_distance(&last, &clean)?;
        // The others keep x0 and the noise apart; PNDM extrapolates velocities, which change along the way.
        let tolerance = if sampler.name() == "pndm" { 2e-2 } else { 1e-4 };
        assert!(far < tolerance, "{} is off by {far}", sampler.name());
    }
    Ok(())
}
