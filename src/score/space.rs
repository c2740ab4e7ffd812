//! The space in which the difference of two predictions is measured: a weight for each timestep.
//!
//! With `abar = alpha^2` and `1 - abar = sigma^2`, noise predictions that differ by `e` give clean latents that differ by
//! `sqrt((1 - abar) / abar) e` and velocities that differ by `e / sqrt(abar)`. So an error that is small as noise can be
//! large as a picture where the noise is strong.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::Calibration;
use crate::model::Prediction;
use crate::sample::NoiseSchedule;

/// Gamma of the min-SNR weights (Hang et al. 2023), which the paper uses for every model.
const GAMMA: f64 = 5.0;

/// The space in which the difference of two predictions is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// What the model predicts, which is the noise for most models: the paper's.
    #[default]
    Prediction,
    /// The predicted noise.
    Noise,
    /// The predicted clean latents.
    CleanLatents,
    /// The predicted velocity.
    Velocity,
    /// The predicted clean latents with the weights `min(SNR, 5)`, which balance the timesteps in training (Hang et al. 2023).
    MinSnr,
}

impl Space {
    /// Every space.
    pub const ALL: [Self; 5] =
        [Self::Prediction, Self::Noise, Self::CleanLatents, Self::Velocity, Self::MinSnr];

    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the schedule decides its weights.
    pub fn needs_schedule(self) -> bool {
        self != Self::Prediction
    }

    /// By what the squared difference of the model's own predictions is multiplied at each point.
    pub fn weights(self, points: &Calibration, schedule: &NoiseSchedule) -> candle_core::Result<Vec<f64>> {
        let weight = |timestep: i64| {
            let level = schedule.level(timestep as f64);
            let (signal, noise) = (level.alpha.powi(2), level.sigma.powi(2));
            // The square of what one unit of the prediction is as clean latents.
            let clean = match schedule.prediction() {
                Prediction::Epsilon => noise / signal,
                Prediction::VPrediction => noise,
            };
            match self {
                Self::Prediction => 1.0,
                Self::Noise => clean * signal / noise,
                Self::CleanLatents => clean,
                Self::Velocity => clean / noise,
                Self::MinSnr => clean * (signal / noise).min(GAMMA),
            }
        };
        Ok(points.timestep.to_vec1::<i64>()?.into_iter().map(weight).collect())
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prediction => "prediction",
            Self::Noise => "noise",
            Self::CleanLatents => "clean-latents",
            Self::Velocity => "velocity",
            Self::MinSnr => "min-snr",
        })
    }
}
