//! Reads `scheduler_config.json` of any scheduler class: which keys are used, and which values are refused.

use serde::Deserialize;

use super::class::{self, Class};
use super::{Prediction, SampleError, Spacing};

/// Models are trained with 1000; far larger values would only fill the memory.
const MOST_TIMESTEPS: usize = 100_000;

/// The relevant keys of `scheduler_config.json`; the defaults are those of diffusers' classes.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Config {
    num_train_timesteps: usize,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    prediction_type: String,
    pub(super) timestep_spacing: Option<Spacing>,
    pub(super) steps_offset: usize,
    pub(super) set_alpha_to_one: Option<bool>,
    trained_betas: Option<Vec<f64>>,
    pub(super) rescale_betas_zero_snr: bool,
    use_flow_sigmas: Option<bool>,
    variance_type: Option<String>,
    timestep_type: Option<String>,
    #[serde(rename = "_class_name")]
    class: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: "linear".to_owned(),
            prediction_type: "epsilon".to_owned(),
            timestep_spacing: None,
            steps_offset: 0,
            set_alpha_to_one: None,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            use_flow_sigmas: None,
            variance_type: None,
            timestep_type: None,
            class: None,
        }
    }
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self, SampleError> {
        let config = Self::deserialize(config)?;
        config.refuse_unsupported()?;
        Ok(config)
    }

    pub(super) fn prediction(&self) -> Result<Prediction, SampleError> {
        match self.prediction_type.as_str() {
            "epsilon" => Ok(Prediction::Epsilon),
            "v_prediction" => Ok(Prediction::VPrediction),
            other => Err(unsupported("prediction_type", other, "it must be `epsilon` or `v_prediction`")),
        }
    }

    pub(super) fn betas(&self) -> Result<Vec<f64>, SampleError> {
        let (count, start, end) = (self.num_train_timesteps, self.beta_start, self.beta_end);
        if !(2..=MOST_TIMESTEPS).contains(&count) {
            return Err(unsupported("num_train_timesteps", count, "it must be between 2 and 100000"));
        }
        if self.steps_offset > count {
            return Err(unsupported(
                "steps_offset",
                self.steps_offset,
                "it must be at most `num_train_timesteps`",
            ));
        }
        if !(start > 0.0 && start <= end && end < 1.0) {
            let found = format!("{start} with `beta_end` {end}");
            return Err(unsupported("beta_start", found, "0 < beta_start <= beta_end < 1 must hold"));
        }
        let line = |from: f64, to: f64| {
            (0..count).map(move |index| from + (to - from) * index as f64 / (count - 1) as f64)
        };
        match self.beta_schedule.as_str() {
            "linear" => Ok(line(start, end).collect()),
            "scaled_linear" => Ok(line(start.sqrt(), end.sqrt()).map(|root| root * root).collect()),
            other => Err(unsupported("beta_schedule", other, "it must be `linear` or `scaled_linear`")),
        }
    }

    fn refuse_unsupported(&self) -> Result<(), SampleError> {
        if let Some(name) = &self.class
            && let Class::Refused(needed) = class::of(name)
        {
            return Err(unsupported("_class_name", name, needed));
        }
        let switches = [
            ("trained_betas", self.trained_betas.is_some(), "it must be null"),
            (
                "use_flow_sigmas",
                self.use_flow_sigmas == Some(true),
                "models trained with flow matching are not supported",
            ),
            (
                "rescale_betas_zero_snr",
                self.rescale_betas_zero_snr && self.prediction()? == Prediction::Epsilon,
                "it needs `prediction_type: v_prediction`, because pure noise does not tell a model's noise \
                 prediction from any other",
            ),
        ];
        if let Some((key, _, needed)) = switches.into_iter().find(|(_, on, _)| *on) {
            return Err(unsupported(key, "set", needed));
        }
        if let Some(found) = self.timestep_type.as_ref().filter(|found| *found != "discrete") {
            return Err(unsupported("timestep_type", found, "it must be `discrete`"));
        }
        match self.variance_type.as_ref().filter(|found| found.starts_with("learned")) {
            Some(found) => {
                Err(unsupported("variance_type", found, "U-Nets that predict a variance are not supported"))
            }
            None => Ok(()),
        }
    }
}

fn unsupported(key: &'static str, found: impl ToString, needed: &'static str) -> SampleError {
    SampleError::Unsupported { key, found: found.to_string(), needed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::NoiseSchedule;

    /// Every key that diffusers 0.42.1 writes for the schedulers of SD v1.x, v2.x, SDXL and the models derived from
    /// them, including keys left over from another class.
    #[test]
    fn configs_of_published_pipelines_are_read() -> Result<(), SampleError> {
        for class in [
            json!({ "_class_name": "PNDMScheduler" }),
            json!({ "_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0 }),
            json!({ "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++",
                "lambda_min_clipped": "-Infinity", "use_karras_sigmas": true, "use_flow_sigmas": false,
                "variance_type": null, "final_sigmas_type": "sigma_min", "solver_order": 3 }),
            json!({ "_class_name": "DDPMScheduler", "variance_type": "fixed_small", "clip_sample": true }),
            json!({ "_class_name": "DDIMScheduler", "thresholding": false, "dynamic_thresholding_ratio": 0.995,
                "clip_sample_range": 1.0, "rescale_betas_zero_snr": false }),
            json!({ "_class_name": "EulerAncestralDiscreteScheduler", "rescale_betas_zero_snr": false,
                "_use_default_values": ["rescale_betas_zero_snr"] }),
            json!({ "_class_name": "EulerDiscreteScheduler", "use_exponential_sigmas": false,
                "use_beta_sigmas": false, "sigma_min": null, "sigma_max": null, "timestep_type": "discrete",
                "rescale_betas_zero_snr": false, "final_sigmas_type": "zero" }),
        ] {
            let mut config = json!({
                "_diffusers_version": "0.42.1", "num_train_timesteps": 1000, "beta_start": 0.00085,
                "beta_end": 0.012, "beta_schedule": "scaled_linear", "trained_betas": null,
                "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
                "set_alpha_to_one": false, "skip_prk_steps": true, "clip_sample": false,
                "sample_max_value": 1.0, "interpolation_type": "linear", "use_karras_sigmas": false,
            });
            for (key, value) in class.as_object().expect("it is an object") {
                config[key] = value.clone();
            }
            let schedule = NoiseSchedule::from_config(&config)?;
            assert_eq!(schedule.final_level_or(true), schedule.level(0.0));
            assert_eq!(
                (schedule.spacing_or(Spacing::Linspace), schedule.steps_offset()),
                (Spacing::Leading, 1)
            );
            assert!((schedule.alphas_cumprod()[999] - 0.0047).abs() < 5e-5);
        }
        Ok(())
    }

    #[test]
    fn unsupported_values_are_named() {
        for (config, key) in [
            (json!({"prediction_type": "sample"}), "prediction_type"),
            (json!({"beta_schedule": "squaredcos_cap_v2"}), "beta_schedule"),
            (json!({"prediction_type": "flow_prediction"}), "prediction_type"),
            (json!({"rescale_betas_zero_snr": true}), "`prediction_type: v_prediction`"),
            (json!({"timestep_type": "continuous"}), "timestep_type"),
            (json!({"trained_betas": [0.1, 0.2]}), "trained_betas"),
            (json!({"use_flow_sigmas": true}), "flow matching"),
            (json!({"variance_type": "learned_range"}), "variance_type"),
            (json!({"_class_name": "EDMEulerScheduler"}), "EDMEulerScheduler"),
            (json!({"_class_name": "EDMDPMSolverMultistepScheduler"}), "EDM's noise levels"),
            (json!({"_class_name": "CosineDPMSolverMultistepScheduler"}), "EDM's noise levels"),
            (json!({"_class_name": "FlowMatchEulerDiscreteScheduler"}), "flow matching"),
            (json!({"_class_name": "FlowMatchLCMScheduler"}), "flow matching"),
            (json!({"_class_name": "CMStochasticIterativeScheduler"}), "consistency models"),
            (json!({"_class_name": "ConsistencyDecoderScheduler"}), "consistency models"),
            (json!({"_class_name": "IPNDMScheduler"}), "IPNDMScheduler"),
            (json!({"_class_name": "VQDiffusionScheduler"}), "such as DDIMScheduler"),
            (json!({"num_train_timesteps": 0}), "num_train_timesteps"),
            (json!({"beta_start": 0.5, "beta_end": 0.1}), "beta_start"),
            (json!({"beta_start": "a"}), "invalid type"),
        ] {
            let error = NoiseSchedule::from_config(&config).expect_err("the config is not supported");
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
