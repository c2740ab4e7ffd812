//! The meaning of a U-Net's output: a property of the trained model that its weights do not reveal.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a U-Net was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity `alpha * noise - sigma * x0` (Salimans & Ho 2022).
    VPrediction,
}
