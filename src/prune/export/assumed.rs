//! What other programs assume of a single file, which has no configuration: the noise schedule, what the U-Net predicts
//! and the scale of the latents. ComfyUI (`model_type` in `comfy/supported_models.py`) and stable-diffusion.cpp
//! (`init` in `src/stable-diffusion.cpp`) go by the family, by marks in files of SDXL, and for SD 2.x by the weights.

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::check::compute_dtype;
use super::error::ExportError;
use super::format::{Family, Program, family};
use crate::model::network::Conditioning;
use crate::model::unet::{Assembly, Origin};
use crate::model::vae::VaeConfig;
use crate::model::{ModelDirectory, Part, UNet, UNetConfig, Weights};
use crate::prune::write_error::WriteError;
use crate::sample::{NoiseSchedule, Prediction};

/// The bias by which ComfyUI tells the prediction of SD 2.x, and the standard deviation above which it is the velocity.
const BIAS: &str = "output_blocks.11.1.transformer_blocks.0.norm1.bias";
const VELOCITY_DEVIATION: f64 = 0.09;

/// The mean of output minus input at the last timestep below which stable-diffusion.cpp takes SD 2.x for a model that
/// predicts the velocity.
const VELOCITY_MEAN: f32 = -1.0;

/// Why the program would load the file but sample wrongly.
pub(super) fn misread(
    program: Program,
    model: &ModelDirectory,
    assembly: &Assembly,
) -> Result<Option<String>, ExportError> {
    let vae = model.has(Part::Vae).then(|| model.vae_config()).transpose()?;
    if let Some(vae @ VaeConfig::Tiny(_)) = &vae {
        return Ok(Some(format!(
            "a single file cannot hold this model's autoencoder, a {}; it would be left out",
            vae.class()
        )));
    }
    let Some(family) = family(assembly.config()) else { return Ok(None) };
    if model.has(Part::Scheduler) {
        let config = model.scheduler_config()?;
        let schedule = match NoiseSchedule::from_config(&config) {
            Ok(schedule) => schedule,
            Err(error) => return Ok(Some(format!("{} cannot sample this model: {error}", program.name()))),
        };
        let velocity = assumes_velocity(program, family, &schedule, model, assembly)?;
        if let Some(reason) = against_schedule(program, family, &schedule, velocity) {
            return Ok(Some(reason));
        }
    }
    let Some(vae) = vae else { return Ok(None) };
    let scale = vae.scaling_factor();
    // As in CompVis' first stage and SDXL's; both programs choose by the family.
    let assumed = if family == Family::Sdxl { 0.13025 } else { 0.18215 };
    Ok(((scale - assumed).abs() > 1e-6).then(|| {
        format!(
            "{} would scale latents by {assumed}, but `scaling_factor` of this autoencoder is {scale}",
            program.name()
        )
    }))
}

/// Where the schedule differs from the one that the program would use.
fn against_schedule(
    program: Program,
    family: Family,
    schedule: &NoiseSchedule,
    velocity: bool,
) -> Option<String> {
    let name = program.name();
    let zero_snr = schedule.ends_in_pure_noise();
    let prediction = |velocity| if velocity { "the velocity" } else { "noise" };
    let predicts = schedule.prediction() == Prediction::VPrediction;
    if velocity != predicts {
        return Some(format!(
            "{name} would assume that this model predicts {} instead of {}; {}",
            prediction(velocity),
            prediction(predicts),
            program.remedy()
        ));
    }
    if zero_snr && (program, family) != (Program::ComfyUi, Family::Sdxl) {
        return Some(format!(
            "{name} would not start from pure noise, as this model's noise schedule does \
             (`rescale_betas_zero_snr`){}",
            if program == Program::ComfyUi { "; its node ModelSamplingDiscrete can set it" } else { "" }
        ));
    }
    let assumed = NoiseSchedule::from_config(&json!({
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_snr,
    }))
    .expect("BUG: Stable Diffusion's own schedule is refused");
    let (ours, theirs) = (schedule.alphas_cumprod(), assumed.alphas_cumprod());
    let same = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-6);
    (!same).then(|| {
        format!(
            "{name} would sample with the betas of Stable Diffusion (`scaled_linear` from 0.00085 to 0.012 in 1000 \
             timesteps), and this model has others"
        )
    })
}

/// Whether the program would take the file for a model that predicts the velocity.
fn assumes_velocity(
    program: Program,
    family: Family,
    schedule: &NoiseSchedule,
    model: &ModelDirectory,
    assembly: &Assembly,
) -> Result<bool, ExportError> {
    Ok(match (family, program) {
        (Family::Sd1, _) => false,
        // The file is marked.
        (Family::Sdxl, _) => schedule.prediction() == Prediction::VPrediction,
        (Family::Sd2, Program::ComfyUi) => deviation(&model.unet_weights()?, assembly)? > VELOCITY_DEVIATION,
        (Family::Sd2, Program::StableDiffusionCpp) => {
            let weights = model.unet_weights()?;
            mean_change(&model.unet(compute_dtype(&weights), &Device::Cpu)?)? < VELOCITY_MEAN
        }
    })
}

/// The standard deviation of the bias that ComfyUI looks at, 0 if the file has none or zeros in its place.
fn deviation(weights: &Weights, assembly: &Assembly) -> Result<f64, ExportError> {
    let pairs = assembly.config().inventory().original_names();
    let Some(pair) = pairs.into_iter().find(|pair| pair.original == BIAS) else { return Ok(0.0) };
    let tensors = assembly.tensors();
    let origin = tensors.into_iter().find(|(entry, _)| pair.parts.contains(&entry.name));
    let Some((_, Origin::Kept(name))) = origin else { return Ok(0.0) };
    let bias = weights.tensor(&name, DType::F64, &Device::Cpu).map_err(WriteError::from)?.to_vec1::<f64>()?;
    let mean = bias.iter().sum::<f64>() / bias.len() as f64;
    Ok((bias.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / bias.len() as f64).sqrt())
}

/// The mean of output minus input for the constant input that stable-diffusion.cpp tries.
fn mean_change(unet: &UNet) -> candle_core::Result<f32> {
    let UNetConfig { in_channels, out_channels, .. } = *unet.config();
    let device = Device::Cpu;
    let latents = Tensor::full(0.5f32, (1, out_channels, 8, 8), &device)?;
    let others = Tensor::zeros((1, in_channels - out_channels, 8, 8), DType::F32, &device)?;
    let sample =
        if in_channels == out_channels { latents.clone() } else { Tensor::cat(&[&latents, &others], 1)? };
    let conditioning = Conditioning {
        encoder_hidden_states: Tensor::full(
            0.5f32,
            (1, 2, unet.config().innermost().cross_attention_dim),
            &device,
        )?,
        text_embeds: None,
        time_ids: None,
    };
    let timestep = Tensor::full(999i64, 1, &device)?;
    let prediction = unet.forward(&sample, &timestep, &conditioning)?.to_dtype(DType::F32)?;
    (prediction - latents)?.mean_all()?.to_scalar()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn reason(program: Program, family: Family, velocity: bool, keys: &Value) -> Option<String> {
        let mut config = json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
        });
        for (key, value) in keys.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let schedule = NoiseSchedule::from_config(&config).expect("a schedule");
        against_schedule(program, family, &schedule, velocity)
    }

    #[test]
    fn what_a_program_would_do_otherwise_is_said() {
        use Program::{ComfyUi, StableDiffusionCpp as Cpp};
        let (velocity, noise) = (json!({}), json!({ "prediction_type": "epsilon" }));
        let zero_snr = json!({ "rescale_betas_zero_snr": true });
        let longer = json!({ "num_train_timesteps": 2000 });
        for (program, family, assumed, keys, expected) in [
            (ComfyUi, Family::Sd1, false, &velocity, Some("noise instead of the velocity; its node")),
            (Cpp, Family::Sd1, false, &velocity, Some("noise instead of the velocity; its option")),
            (ComfyUi, Family::Sd1, false, &noise, None),
            (ComfyUi, Family::Sd2, true, &noise, Some("the velocity instead of noise")),
            (Cpp, Family::Sd2, true, &velocity, None),
            (ComfyUi, Family::Sdxl, true, &zero_snr, None),
            (Cpp, Family::Sdxl, true, &zero_snr, Some("pure noise")),
            (ComfyUi, Family::Sd2, true, &zero_snr, Some("pure noise")),
            (ComfyUi, Family::Sdxl, true, &longer, Some("this model has others")),
            (Cpp, Family::Sdxl, true, &json!({ "beta_schedule": "linear" }), Some("this model has others")),
        ] {
            let found = reason(program, family, assumed, keys);
            match expected {
                None => assert_eq!(found, None, "{program:?} {keys}"),
                Some(words) => {
                    assert!(found.as_ref().is_some_and(|found| found.contains(words)), "{found:?} {keys}");
                }
            }
        }
    }
}
