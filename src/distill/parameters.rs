//! The parameters of retraining: the `training:` block of the stage `distill`.
//!
//! The defaults are those of BK-SDM (Kim et al. 2024) unless a field says otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::losses::Normalisation;
use crate::base::Manifest;

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LearningRateSchedule {
    /// It stays constant.
    #[default]
    Constant,
    /// It falls to zero at the last step, along half a cosine.
    Cosine,
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
    pub steps: u64,
    /// Samples per optimiser step. Default 256.
    pub batch_size: usize,
    /// Number of pieces that a batch is divided into to save memory; their gradients are summed. Default 1.
    pub gradient_accumulation: usize,
    /// Learning rate after the warm-up. Default 5e-5.
    pub learning_rate: f64,
    /// How the learning rate changes after the warm-up. Default `constant`.
    pub learning_rate_schedule: LearningRateSchedule,
    /// Steps over which the learning rate rises linearly from zero. Default 0: the student starts from trained weights.
    pub warm_up_steps: u64,
    /// AdamW's decay of the first and of the second moment. Default [0.9, 0.999].
    pub betas: [f64; 2],
    /// AdamW's epsilon, which keeps the division finite. Default 1e-8.
    pub epsilon: f64,
    /// AdamW's decoupled weight decay. Default 0.01.
    pub weight_decay: f64,
    /// Largest L2 norm of all gradients together; larger gradients are scaled down to it. Default 1.
    pub gradient_clip: f64,
    /// Decay of the moving average of the weights, which is the output of the stage; with 0 the output is the last weights. Default 0.9999, approached as (1 + step) / (10 + step), as diffusers does.
    pub ema_decay: f64,
    /// Weight of the task loss: the student's prediction against the noise (or the velocity) itself. Default 1.
    pub task_weight: f64,
    /// Weight of the output loss: the student's prediction against the teacher's. Default 1.
    pub output_weight: f64,
    /// Weight of the feature loss. It means the same under every normalisation, because the normalised loss starts where the plain one does. Default 1.
    pub feature_weight: f64,
    /// How each feature map's loss is weighted by the teacher's norm. Default `inverse-square-norm`: the error relative to the teacher's power (LAPTOP-Diff's idea; BK-SDM has `none`).
    pub normalisation: Normalisation,
    /// Batches over which norms and starting losses are measured. Default 8: the loss of a single batch depends strongly on the timesteps it drew.
    pub normalisation_batches: u64,
    /// Which feature maps are compared. Default `stages`.
    pub features: FeatureTaps,
    /// Fraction of samples whose text is replaced by the empty prompt, so that the student can be used with classifier-free guidance. Default 0.1, the fraction Stable Diffusion was trained with (ours: BK-SDM has 0).
    pub unconditional_fraction: f64,
    /// Number of steps per line of `losses.jsonl`; the last step always has a line. Default 1.
    pub history_every: u64,
}

impl Default for DistillParameters {
    fn default() -> Self {
        Self {
            steps: 50_000,
            batch_size: 256,
            gradient_accumulation: 1,
            learning_rate: 5e-5,
            learning_rate_schedule: LearningRateSchedule::Constant,
            warm_up_steps: 0,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 1e-2,
            gradient_clip: 1.0,
            ema_decay: 0.9999,
            task_weight: 1.0,
            output_weight: 1.0,
            feature_weight: 1.0,
            normalisation: Normalisation::InverseSquareNorm,
            normalisation_batches: 8,
            features: FeatureTaps::Stages,
            unconditional_fraction: 0.1,
            history_every: 1,
        }
    }
}

impl DistillParameters {
    /// Names every value in `manifest`: each of them can change the bytes of the retrained weights or of their history.
    pub fn describe(&self, manifest: &mut Manifest) {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let Self {
            steps,
            batch_size,
            gradient_accumulation,
            learning_rate,
            learning_rate_schedule,
            warm_up_steps,
            betas,
            epsilon,
            weight_decay,
            gradient_clip,
            ema_decay,
            task_weight,
            output_weight,
            feature_weight,
            normalisation,
            normalisation_batches,
            features,
            unconditional_fraction,
            history_every,
        } = self;
        manifest
            .field("steps", steps)
            .field("batch-size", batch_size)
            .field("gradient-accumulation", gradient_accumulation)
            .float("learning-rate", *learning_rate)
            .field("learning-rate-schedule", format_args!("{learning_rate_schedule:?}"))
            .field("warm-up-steps", warm_up_steps)
            .float("betas.0", betas[0])
            .float("betas.1", betas[1])
            .float("epsilon", *epsilon)
            .float("weight-decay", *weight_decay)
            .float("gradient-clip", *gradient_clip)
            .float("ema-decay", *ema_decay)
            .float("task-weight", *task_weight)
            .float("output-weight", *output_weight)
            .float("feature-weight", *feature_weight)
            .field("normalisation", format_args!("{normalisation:?}"))
            .field("normalisation-batches", normalisation_batches)
            .field("features", format_args!("{features:?}"))
            .float("unconditional-fraction", *unconditional_fraction)
            .field("history-every", history_every);
    }

    /// The first invalid value: its name, and a message with what was found and what was needed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let at_least_one = [
            ("steps", self.steps),
            ("batch-size", self.batch_size as u64),
            ("gradient-accumulation", self.gradient_accumulation as u64),
            ("normalisation-batches", self.normalisation_batches),
            ("history-every", self.history_every),
        ];
        if let Some((name, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err((name, format!("`{name}` is 0; it must be at least 1")));
        }
        let positive = [
            ("learning-rate", self.learning_rate),
            ("epsilon", self.epsilon),
            ("gradient-clip", self.gradient_clip),
        ];
        if let Some((name, value)) =
            positive.into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0))
        {
            return Err((name, format!("`{name}` is {value}; it must lie above 0")));
        }
        let weights = [
            ("weight-decay", self.weight_decay),
            ("task-weight", self.task_weight),
            ("output-weight", self.output_weight),
            ("feature-weight", self.feature_weight),
        ];
        if let Some((name, value)) =
            weights.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return Err((name, format!("`{name}` is {value}; it must be 0 or more")));
        }
        let below_one = [("betas", self.betas[0]), ("betas", self.betas[1]), ("ema-decay", self.ema_decay)];
        if let Some((name, value)) = below_one.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return Err((name, format!("`{name}` holds {value}; it must be at least 0 and below 1")));
        }
        if !(0.0..=1.0).contains(&self.unconditional_fraction) {
            let found = self.unconditional_fraction;
            return Err((
                "unconditional-fraction",
                format!("`unconditional-fraction` is {found}; it must lie between 0 and 1"),
            ));
        }
        if !self.batch_size.is_multiple_of(self.gradient_accumulation) {
            let (batch, pieces) = (self.batch_size, self.gradient_accumulation);
            return Err((
                "gradient-accumulation",
                format!("`gradient-accumulation` is {pieces}; it must divide `batch-size`, which is {batch}"),
            ));
        }
        if self.task_weight + self.output_weight + self.feature_weight == 0.0 {
            let names = "`task-weight`, `output-weight` and `feature-weight`";
            return Err(("task-weight", format!("{names} are all 0; at least one must lie above 0")));
        }
        Ok(())
    }

    /// The learning rate of the step with this index, counted from 0.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        if step < self.warm_up_steps {
            return self.learning_rate * (step + 1) as f64 / self.warm_up_steps as f64;
        }
        match self.learning_rate_schedule {
            LearningRateSchedule::Constant => self.learning_rate,
            LearningRateSchedule::Cosine => {
                let passed = (step - self.warm_up_steps) as f64;
                let span = self.steps.saturating_sub(self.warm_up_steps).max(1) as f64;
                self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * passed / span).cos())
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
        assert_eq!(bad(|p| p.steps = 0), Err("steps"));
        assert_eq!(bad(|p| p.learning_rate = f64::NAN), Err("learning-rate"));
        assert_eq!(bad(|p| p.betas[1] = 1.0), Err("betas"));
        assert_eq!(bad(|p| p.gradient_accumulation = 3), Err("gradient-accumulation"));
        assert_eq!(bad(|p| p.unconditional_fraction = 1.5), Err("unconditional-fraction"));
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let parameters = DistillParameters {
            steps: 14,
            warm_up_steps: 4,
            learning_rate: 1.0,
            learning_rate_schedule: LearningRateSchedule::Cosine,
            ..Default::default()
        };
        let rates: Vec<f64> = (0..14).map(|step| parameters.learning_rate_at(step)).collect();
        assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((rates[9] - 0.5).abs() < 1e-12, "the cosine is one half at its midpoint: {rates:?}");
        assert!(rates[4..].windows(2).all(|pair| pair[1] < pair[0]));
    }

    #[test]
    fn every_field_enters_the_key_by_its_name() -> Result<(), serde_json::Error> {
        let mut manifest = Manifest::default();
        DistillParameters::default().describe(&mut manifest);
        let described: BTreeSet<&str> =
            manifest.entries().map(|(entry, _)| entry.split('.').next().unwrap_or(entry)).collect();
        let schema = serde_json::to_value(schemars::schema_for!(DistillParameters))?;
        let properties = schema["properties"].as_object().expect("a struct has properties");
        assert_eq!(described, properties.keys().map(String::as_str).collect());
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
                _ if value.is_u64() => 3.into(),
                _ => 0.25.into(),
            };
            let mut changed = default.clone();
            changed[name] = other;
            let changed: DistillParameters = serde_json::from_value(changed)?;
            assert_ne!(key(&changed), key(&DistillParameters::default()), "{name}");
        }
        Ok(())
    }
}
