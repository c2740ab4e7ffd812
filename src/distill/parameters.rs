//! The parameters of retraining: the `training:` block of the stage `distill`.
//!
//! The defaults are those of BK-SDM (Kim et al. 2024) unless a field says otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::DistillError;
use super::losses::Normalisation;
use super::validation_parameters::ValidationParameters;
use crate::base::bounded::{BelowOne, Fraction, Positive, Weight};
use crate::base::{Manifest, Real, Whole, pattern};
use crate::nn::optim::AdamW;
use crate::train::{ActivationCheckpointing, Moments, Update};

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LearningRateSchedule {
    /// It stays constant.
    #[default]
    Constant,
    /// It falls linearly to zero at the last step.
    Linear,
    /// It falls to zero at the last step, along half a cosine.
    Cosine,
    /// It falls along half a cosine several times, each time from the full rate (`learning-rate-cycles`).
    CosineWithRestarts,
}

/// Which feature maps of student and teacher are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureTaps {
    /// The outputs of `down_blocks.*`, `mid_block` and `up_blocks.*`.
    #[default]
    Stages,
    /// The outputs of the stages and of every unit that the student kept.
    Units,
}

/// How a pruned U-Net is retrained against its teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DistillParameters {
    /// Optimiser steps. Default 50000.
    pub steps: Whole<1, 1_000_000_000>,
    /// Samples per optimiser step. Default 256.
    pub batch_size: Whole<1, 65_536>,
    /// Number of pieces that a batch is divided into to save memory; their gradients are summed. Default 1.
    pub gradient_accumulation: Whole<1, 65_536>,
    /// Learning rate after the warm-up. Default 5e-5.
    pub learning_rate: Real<Positive>,
    /// How the learning rate changes after the warm-up. Default `constant`.
    pub learning_rate_schedule: LearningRateSchedule,
    /// For `cosine-with-restarts`: how many times the rate falls. Default 1.
    pub learning_rate_cycles: Whole<1, 1_000_000>,
    /// Steps over which the learning rate rises linearly from zero. Default 0: the student starts from trained weights.
    pub warm_up_steps: Whole<0, 1_000_000_000>,
    /// AdamW's decay of the first and of the second moment. Default [0.9, 0.999].
    pub betas: [Real<BelowOne>; 2],
    /// AdamW's epsilon, which keeps the division finite. Default 1e-8.
    pub epsilon: Real<Positive>,
    /// AdamW's decoupled weight decay. Default 0.01.
    pub weight_decay: Real<Weight>,
    /// Largest L2 norm of all gradients together; larger gradients are scaled down to it. Default 1.
    pub gradient_clip: Real<Positive>,
    /// Decay of the moving average of the weights, which is the output of the stage; with 0 the output is the last weights. Default 0.9999, approached as (1 + step) / (10 + step), as diffusers does.
    pub ema_decay: Real<BelowOne>,
    /// Weight of the task loss: the student's prediction against the noise (or the velocity) itself. Default 1.
    pub task_weight: Real<Weight>,
    /// Weights each sample of the task loss by min(SNR, gamma) / SNR, or by min(SNR, gamma) / (SNR + 1) if the model predicts the velocity (Hang et al. 2023, who use 5), so that timesteps with little noise do not dominate. Default: no weighting.
    pub min_snr_gamma: Option<Real<Positive>>,
    /// Weight of the output loss: the student's prediction against the teacher's. Default 1.
    pub output_weight: Real<Weight>,
    /// Weight of the feature loss. It means the same under `none`, `inverse-norm` and `inverse-square-norm`, whose losses start at the same value. Default 1.
    pub feature_weight: Real<Weight>,
    /// How each feature map's loss is weighted. `inverse-square-norm`: by the error relative to the teacher's power (our reading of LAPTOP-Diff); BK-SDM has `none`. Default `initial-loss` (ours): every term, also those of task and output, is divided by its own value before training, so that each kind of loss begins at 1, times its weight. With the others almost all of the gradient is that of the features, and nothing holds the output.
    pub normalisation: Normalisation,
    /// Batches over which norms and starting losses are measured. Default 8: the loss of a single batch depends strongly on the timesteps it drew.
    pub normalisation_batches: Whole<1, 1_000_000>,
    /// Which feature maps are compared. Default `stages`.
    pub features: FeatureTaps,
    /// Fraction of samples whose text is replaced by the empty prompt, so that the student can be used with classifier-free guidance. Default 0.1, the fraction Stable Diffusion was trained with (ours: BK-SDM has 0).
    pub unconditional_fraction: Real<Fraction>,
    /// Gives a sample a caption drawn from `texts`, or else from all captions of the data, with the probability exp(-lambda (1 - t / T)) at timestep t of T (random conditioning, Kim et al. 2025, arXiv 2504.02011; their code has a lambda of 5, and texts without pictures). Student and teacher get the same caption. Default: never.
    pub random_conditioning_lambda: Option<Real<Positive>>,
    /// Standard deviation of a number that is added to the noise of each channel as a whole, so that the student can change the brightness of a whole picture, from 0 to 1. diffusers' training scripts recommend 0.1. Default 0.
    pub noise_offset: Real<Fraction>,
    /// Tensors of the student that are not trained: names or patterns in which `*` stands for any text, as in `conv_in.*`. They keep their bytes and have no gradients. Default: none.
    pub freeze: Vec<String>,
    /// Measures the gradient of each kind of loss (task, output, features) by itself every so many steps, if the step has a line in `losses.jsonl`. That costs three more passes of the student, forward and backward, and the memory of three more gradients. Default: never.
    pub gradient_norms_every: Option<Whole<1, 1_000_000_000>>,
    /// Measures losses on held-out rows and draws pictures while it trains. It changes no weight, except that held-out rows are not trained on. Default: no validation.
    pub validation: Option<ValidationParameters>,
    /// Which activations the backward pass computes again, to save memory: `none`, those inside each `stage`, or those inside each `unit` (gradient checkpointing). It changes no result. Default: as few as fit into memory.
    pub activation_checkpointing: Option<ActivationCheckpointing>,
    /// How AdamW's moments are kept: `f32`, or `8-bit` with block-wise scales (Dettmers et al. 2022), which takes a quarter of the memory. Default `f32`.
    pub moments: Moments,
    /// Keeps the moving average in the host's memory instead of the GPU's. Default false.
    pub ema_on_host: bool,
    /// Number of steps per line of `losses.jsonl`; the last step always has a line. Default 1.
    pub history_every: Whole<1, 1_000_000_000>,
}

impl Default for DistillParameters {
    fn default() -> Self {
        Self {
            steps: Whole::new(50_000),
            batch_size: Whole::new(256),
            gradient_accumulation: Whole::new(1),
            learning_rate: Real::new(5e-5),
            learning_rate_schedule: LearningRateSchedule::Constant,
            learning_rate_cycles: Whole::new(1),
            warm_up_steps: Whole::new(0),
            betas: [Real::new(0.9), Real::new(0.999)],
            epsilon: Real::new(1e-8),
            weight_decay: Real::new(1e-2),
            gradient_clip: Real::new(1.0),
            ema_decay: Real::new(0.9999),
            task_weight: Real::new(1.0),
            min_snr_gamma: None,
            output_weight: Real::new(1.0),
            feature_weight: Real::new(1.0),
            normalisation: Normalisation::InitialLoss,
            normalisation_batches: Whole::new(8),
            features: FeatureTaps::Stages,
            unconditional_fraction: Real::new(0.1),
            random_conditioning_lambda: None,
            noise_offset: Real::new(0.0),
            freeze: Vec::new(),
            gradient_norms_every: None,
            validation: None,
            activation_checkpointing: None,
            moments: Moments::F32,
            ema_on_host: false,
            history_every: Whole::new(1),
        }
    }
}

/// A choice as a pipeline file writes it.
fn word(choice: &impl Serialize) -> String {
    let text = serde_json::to_value(choice).expect("a choice serialises");
    text.as_str().expect("to a word").to_owned()
}

impl DistillParameters {
    /// Names in `manifest` every value that can change the bytes of the retrained weights or of their history.
    pub fn describe(&self, manifest: &mut Manifest) {
        manifest
            .field("steps", self.steps)
            .field("batch-size", self.batch_size)
            .field("gradient-accumulation", self.gradient_accumulation)
            .float("learning-rate", self.learning_rate.get())
            .field("learning-rate-schedule", word(&self.learning_rate_schedule))
            .field("learning-rate-cycles", self.learning_rate_cycles)
            .field("warm-up-steps", self.warm_up_steps)
            .float("betas.0", self.betas[0].get())
            .float("betas.1", self.betas[1].get())
            .float("epsilon", self.epsilon.get())
            .float("weight-decay", self.weight_decay.get())
            .float("gradient-clip", self.gradient_clip.get())
            .float("ema-decay", self.ema_decay.get())
            .float("task-weight", self.task_weight.get())
            .float("output-weight", self.output_weight.get())
            .float("feature-weight", self.feature_weight.get())
            .field("normalisation", word(&self.normalisation))
            .field("normalisation-batches", self.normalisation_batches)
            .field("features", word(&self.features))
            .float("unconditional-fraction", self.unconditional_fraction.get())
            .float("noise-offset", self.noise_offset.get())
            .list("freeze", &self.freeze)
            .field("moments", word(&self.moments))
            .field("ema-on-host", self.ema_on_host)
            .field("history-every", self.history_every);
        let optional = [
            ("min-snr-gamma", self.min_snr_gamma),
            ("random-conditioning-lambda", self.random_conditioning_lambda),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                manifest.float(name, value.get());
            }
        }
        if let Some(every) = self.gradient_norms_every {
            manifest.field("gradient-norms-every", every);
        }
        if let Some(validation) = &self.validation {
            validation.describe(manifest);
        }
    }

    /// Whether a tensor of this name is not trained.
    pub fn freezes(&self, name: &str) -> bool {
        self.freeze.iter().any(|pattern| pattern::matches(pattern, name))
    }

    /// Fails if a pattern of `freeze` matches none of these tensors, or if all of them are frozen.
    pub fn check_freeze<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), DistillError> {
        let names: Vec<&str> = names.collect();
        let matches_none = |pattern: &&String| !names.iter().any(|name| pattern::matches(pattern, name));
        match self.freeze.iter().find(matches_none) {
            Some(pattern) => Err(DistillError::NothingFrozen { pattern: pattern.clone() }),
            None if names.iter().all(|name| self.freezes(name)) => Err(DistillError::AllFrozen),
            None => Ok(()),
        }
    }

    /// What the types do not check: values that do not go together. Gives a name, and a message with what was found
    /// and what was needed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let (batch, pieces) = (self.batch_size.get(), self.gradient_accumulation.get());
        if !batch.is_multiple_of(pieces) {
            return Err((
                "gradient-accumulation",
                format!("`gradient-accumulation` is {pieces}; it must divide `batch-size`, which is {batch}"),
            ));
        }
        if [self.task_weight, self.output_weight, self.feature_weight]
            .iter()
            .all(|weight| weight.get() == 0.0)
        {
            let names = "`task-weight`, `output-weight` and `feature-weight`";
            return Err(("task-weight", format!("{names} are all 0; at least one must lie above 0")));
        }
        Ok(())
    }

    /// Why the first steps depend on how many follow; `None` if they do not.
    pub fn depends_on_steps(&self) -> Option<String> {
        let schedule = self.learning_rate_schedule;
        (schedule != LearningRateSchedule::Constant)
            .then(|| format!("`learning-rate-schedule: {}` depends on `steps`", word(&schedule)))
    }

    /// The update of the step with this index, counted from 0.
    pub(super) fn update(&self, step: u64) -> Update {
        let adamw = AdamW {
            learning_rate: self.learning_rate_at(step),
            beta1: self.betas[0].get(),
            beta2: self.betas[1].get(),
            eps: self.epsilon.get(),
            weight_decay: self.weight_decay.get(),
        };
        Update { adamw, step, ema_decay: self.ema_decay.get() }
    }

    /// The learning rate of the step with this index, counted from 0.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let (rate, warm_up) = (self.learning_rate.get(), u64::from(self.warm_up_steps));
        if step < warm_up {
            return rate * (step + 1) as f64 / warm_up as f64;
        }
        let (passed, span) = (step - warm_up, u64::from(self.steps).saturating_sub(warm_up).max(1));
        let share = |steps: u64| steps as f64 / span as f64;
        let cosine = |passed: f64| 0.5 * (1.0 + (std::f64::consts::PI * passed).cos());
        match self.learning_rate_schedule {
            LearningRateSchedule::Constant => rate,
            LearningRateSchedule::Linear => rate * (1.0 - share(passed)),
            LearningRateSchedule::Cosine => rate * cosine(share(passed)),
            // In whole numbers: rounding must not put a restart at the end of the cycle before.
            LearningRateSchedule::CosineWithRestarts => {
                rate * cosine(share(passed * self.learning_rate_cycles.get() as u64 % span))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_empty_block_is_the_default() -> Result<(), serde_json::Error> {
        let parameters: DistillParameters = serde_json::from_str("{}")?;
        assert_eq!(parameters, DistillParameters::default());
        assert_eq!(parameters.check(), Ok(()));
        assert!(serde_json::from_str::<DistillParameters>(r#"{"learning_rate": 1}"#).is_err());
        Ok(())
    }

    #[test]
    fn a_bad_value_is_named() {
        let bad = |change: fn(&mut DistillParameters)| {
            let mut parameters = DistillParameters::default();
            change(&mut parameters);
            parameters.check().map_err(|(name, _)| name)
        };
        assert_eq!(bad(|p| p.gradient_accumulation = Whole::new(3)), Err("gradient-accumulation"));
        let unweighted =
            bad(|p| (p.task_weight, p.output_weight, p.feature_weight) = ([Real::new(0.0); 3]).into());
        assert_eq!(unweighted, Err("task-weight"));
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let parameters = DistillParameters {
            steps: Whole::new(14),
            warm_up_steps: Whole::new(4),
            learning_rate: Real::new(1.0),
            learning_rate_schedule: LearningRateSchedule::Cosine,
            ..Default::default()
        };
        let rates: Vec<f64> = (0..14).map(|step| parameters.learning_rate_at(step)).collect();
        assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((rates[9] - 0.5).abs() < 1e-12, "the cosine is one half at its midpoint: {rates:?}");
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]));
    }

    /// Against diffusers 0.42.1's `get_scheduler`, which begins its warm-up at 0 and ours at one step.
    #[test]
    fn schedules_are_those_of_diffusers() {
        use LearningRateSchedule::{Cosine, CosineWithRestarts, Linear};
        for (schedule, cycles, expected) in [
            (Linear, 1, [1.0, 0.75, 0.5, 0.25]),
            (Cosine, 1, [1.0, 0.853_553_390_593_273_7, 0.5, 0.146_446_609_406_726_24]),
            (CosineWithRestarts, 2, [1.0, 0.5, 1.0, 0.5]),
        ] {
            let parameters = DistillParameters {
                steps: Whole::new(6),
                warm_up_steps: Whole::new(2),
                learning_rate: Real::new(1.0),
                learning_rate_schedule: schedule,
                learning_rate_cycles: Whole::new(cycles),
                ..Default::default()
            };
            for (step, expected) in (2..6).zip(expected) {
                let found = parameters.learning_rate_at(step);
                assert!((found - expected).abs() < 1e-12, "{schedule:?} at {step}: {found}");
            }
        }
        let many = DistillParameters {
            learning_rate: Real::new(1.0),
            learning_rate_schedule: CosineWithRestarts,
            learning_rate_cycles: Whole::new(50),
            ..Default::default()
        };
        let restarts = (0..50).map(|cycle| many.learning_rate_at(cycle * 1000));
        assert!(restarts.into_iter().all(|rate| rate == 1.0), "every cycle begins with the full rate");
    }

    #[test]
    fn every_field_that_changes_bytes_enters_the_key_by_its_name() -> Result<(), serde_json::Error> {
        let mut manifest = Manifest::default();
        let all = DistillParameters {
            min_snr_gamma: Some(Real::new(5.0)),
            random_conditioning_lambda: Some(Real::new(5.0)),
            gradient_norms_every: Some(Whole::new(10)),
            validation: Some(ValidationParameters::default()),
            ..Default::default()
        };
        all.describe(&mut manifest);
        let described: BTreeSet<&str> =
            manifest.entries().map(|(entry, _)| entry.split('.').next().unwrap_or(entry)).collect();
        let schema = serde_json::to_value(schemars::schema_for!(DistillParameters))?;
        let properties = schema["properties"].as_object().expect("a struct has properties");
        let named = properties.keys().map(String::as_str);
        assert_eq!(described, named.filter(|name| *name != "activation-checkpointing").collect());
        Ok(())
    }

    #[test]
    fn every_field_changes_the_key() -> Result<(), serde_json::Error> {
        let key = |parameters: &DistillParameters| {
            let mut manifest = Manifest::default();
            parameters.describe(&mut manifest);
            manifest.key()
        };
        let default = serde_json::to_value(DistillParameters::default())?;
        let fields = default.as_object().expect("a struct is an object");
        for (name, value) in fields {
            let other = match name.as_str() {
                "learning-rate-schedule" => "cosine".into(),
                "normalisation" => "none".into(),
                "features" => "units".into(),
                "betas" => serde_json::json!([0.5, 0.999]),
                "freeze" => serde_json::json!(["conv_in.*"]),
                "gradient-norms-every" => 3.into(),
                "validation" => serde_json::json!({"rows": 3}),
                "activation-checkpointing" => "unit".into(),
                "moments" => "8-bit".into(),
                "ema-on-host" => true.into(),
                _ if value.is_u64() => 3.into(),
                _ => 0.25.into(),
            };
            let mut changed = default.clone();
            changed[name] = other;
            let changed: DistillParameters = serde_json::from_value(changed)?;
            let same = key(&changed) == key(&DistillParameters::default());
            assert_eq!(same, name == "activation-checkpointing", "{name}");
        }
        Ok(())
    }
}
