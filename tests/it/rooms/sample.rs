//! The samplers against trajectories of diffusers 0.42.1 (`tests/golden_sample/trajectories.py`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Result, Tensor};
use laptop_diff::sample::{self, NoiseSchedule, SAMPLERS};

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
        for &sampler in SAMPLERS {
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
                assert!(far < TOLERANCE, "{name} is off by {far}");
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
