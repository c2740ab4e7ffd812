//! Why scoring fails.

use miette::Diagnostic;

use super::need::Need;
use crate::base::names::UnknownName;
use crate::base::{FileError, Interrupted, UnitId, units};
use crate::model::ModelError;
use crate::model::files::weights::WeightsError;
use crate::model::network::PruneError;
use crate::sample::SampleError;

/// Why scoring fails.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ScoreError {
    /// Half of the points must be left to measure on.
    #[error(
        "`{criterion}` fits to one half of the calibration points and measures on the other, but there is only one point"
    )]
    #[diagnostic(
        code(score::one_point),
        help("give more `samples` to `calibrate`: at least 64 are a good number")
    )]
    OnePoint {
        /// The criterion.
        criterion: &'static str,
    },
    /// The run was interrupted; the checkpoint is written.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The calibration is empty.
    #[error("there are no calibration points to score on")]
    #[diagnostic(code(score::no_points), help("raise `samples` of the calibrate stage"))]
    NoPoints,
    /// There are no units to remove.
    #[error("the U-Net has no unit of this granularity, so there is nothing to score")]
    #[diagnostic(
        code(score::no_units),
        help(
            "set another `granularity` in the score stage, such as `[resnet, block]`; `laptop-diff inspect` lists the units of the model"
        )
    )]
    NoUnits,
    /// No criterion has this name.
    #[error(transparent)]
    #[diagnostic(transparent)]
    UnknownCriterion(#[from] UnknownName),
    /// An input that a criterion requires is missing.
    #[error("`{criterion}` needs {}", need.in_words())]
    #[diagnostic(code(score::needs), help("give it to the stage, or leave the criterion out"))]
    Needs {
        /// The criterion.
        criterion: &'static str,
        /// The missing input.
        need: Need,
    },
    /// The gradients do not fit into memory.
    #[error(
        "`{criterion}` needs {} of memory for the U-Net's weights and gradients in f32, but only {} are available",
        units::bytes(*needed), units::bytes(*available)
    )]
    #[diagnostic(
        code(score::no_memory_for_gradients),
        help(
            "the backward pass cannot stream weights from disk: leave `taylor` and `diff-pruning` out, or use a machine with more memory"
        )
    )]
    NoMemoryForGradients {
        /// The criterion.
        criterion: &'static str,
        /// Bytes of weights and gradients.
        needed: u64,
        /// Bytes of memory.
        available: u64,
    },
    /// A score is NaN or infinite.
    #[error("the `{criterion}` of `{unit}` is {value}; it must be a finite number")]
    #[diagnostic(
        code(score::not_finite),
        help("the U-Net without `{unit}` probably overflows: load it in f32 or bf16, and check its weights")
    )]
    NotFinite {
        /// The unit.
        unit: UnitId,
        /// The criterion.
        criterion: &'static str,
        /// The value found.
        value: f64,
    },
    /// The U-Net with all its units predicts a NaN or an infinity.
    #[error("the U-Net predicts {value} on calibration point {point}, with all its units")]
    #[diagnostic(
        code(score::prediction),
        help(
            "it overflows: load it in f32 or bf16, and check its weights and that the points belong to this model"
        )
    )]
    Prediction {
        /// The point, from 0.
        point: usize,
        /// The first such number.
        value: f32,
    },
    /// A joint loss is NaN or infinite.
    #[error("the joint loss of removing {units} units is {value}; it must be a finite number")]
    #[diagnostic(
        code(score::joint_not_finite),
        help("the U-Net without them probably overflows: load it in f32 or bf16, and check its weights")
    )]
    JointNotFinite {
        /// The number of units removed at once.
        units: usize,
        /// The value found.
        value: f64,
    },
    /// The units cannot be removed together.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Prune(#[from] PruneError),
    /// The weights could not be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// The trainable U-Net could not be built.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(Box<ModelError>),
    /// A timestep is outside the noise schedule.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sample(#[from] SampleError),
    /// Pictures could not be drawn or scored.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pictures(Box<dyn Diagnostic + Send + Sync>),
    /// Pictures without a unit could not be drawn or scored.
    #[error("the pictures without `{unit}` cannot be scored: {cause}")]
    #[diagnostic(forward(cause))]
    PicturesWithout {
        /// The unit.
        unit: UnitId,
        /// The part, the prompt and the step.
        cause: Box<ScoreError>,
    },
    /// The checkpoint could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] FileError),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(
        code(score::tensor),
        help("if memory is short, lower `batch` or `variants` of the score stage")
    )]
    Tensor(#[from] candle_core::Error),
}

impl ScoreError {
    /// Names the unit without which pictures were drawn.
    pub(super) fn without(self, unit: &UnitId) -> Self {
        match self {
            Self::Pictures(_) => Self::PicturesWithout { unit: unit.clone(), cause: Box::new(self) },
            other => other,
        }
    }
}

impl From<ModelError> for ScoreError {
    fn from(error: ModelError) -> Self {
        // Boxed because it is larger than the other variants.
        Self::Model(Box::new(error))
    }
}
