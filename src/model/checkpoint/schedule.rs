//! The noise schedule of a checkpoint: that of latent diffusion, changed by marks. A mark is a tensor of which the name
//! alone matters; ComfyUI (`SDXL.model_type` in `comfy/supported_models.py`) and A1111 read the same ones.

use serde_json::{Value, json};

use super::places::{V_PREDICTION, ZERO_SNR};
use crate::model::files::Weights;
use crate::model::network::Prediction;

/// Marks of models that were trained on EDM's noise levels, and who has them.
const EDM: &[(&str, &str)] = &[
    ("edm_mean", "Playground v2.5"),
    ("edm_std", "Playground v2.5"),
    ("edm_vpred.sigma_max", "CosXL"),
    ("edm_vpred.sigma_min", "CosXL"),
];

/// Refuses models that were trained on other noise.
pub(super) fn check(weights: &Weights) -> Result<(), String> {
    match EDM.iter().find(|(name, _)| weights.contains(name)) {
        Some((name, example)) => Err(format!(
            "its tensor `{name}` marks a model trained on EDM's noise levels, like {example}, which is not supported"
        )),
        None => Ok(()),
    }
}

/// The scheduler's class: the one that each family's own repository names. diffusers' PNDM ignores zero terminal SNR.
pub(super) fn class(weights: &Weights, is_sdxl: bool, is_sd2: bool) -> &'static str {
    match (is_sdxl, is_sd2 || weights.contains(ZERO_SNR)) {
        (true, _) => "EulerDiscreteScheduler",
        (_, true) => "DDIMScheduler",
        _ => "PNDMScheduler",
    }
}

/// `scheduler_config.json` of a scheduler of this class.
pub(super) fn config(weights: &Weights, class: &str, prediction: Prediction) -> Result<Value, String> {
    let zero_snr = weights.contains(ZERO_SNR);
    if zero_snr && prediction == Prediction::Epsilon {
        return Err(format!(
            "its tensor `{ZERO_SNR}` marks a noise schedule that ends in pure noise, which needs a model that predicts \
             the velocity: give `prediction: v_prediction` if it does, or remove the tensor"
        ));
    }
    let mut keys = json!({
        "_class_name": class,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    });
    if zero_snr {
        // The first step must start from pure noise, as Lin et al. 2023 recommend and ComfyUI does.
        keys["timestep_spacing"] = json!("trailing");
        keys["rescale_betas_zero_snr"] = json!(true);
    }
    if class != "EulerDiscreteScheduler" {
        keys["set_alpha_to_one"] = json!(false);
    }
    match class {
        "PNDMScheduler" => keys["skip_prk_steps"] = json!(true),
        "DDIMScheduler" => keys["clip_sample"] = json!(false),
        _ => {}
    }
    Ok(keys)
}

/// What the file says that its U-Net predicts.
pub(super) fn stated(weights: &Weights) -> Option<Prediction> {
    weights.contains(V_PREDICTION).then_some(Prediction::VPrediction)
}
