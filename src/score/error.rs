//! Why there are no scores.

use std::path::PathBuf;

use miette::Diagnostic;

use super::Need;
use crate::base::{Interrupted, UnitId, units};
use crate::model::ModelError;
use crate::model::files::weights::WeightsError;
use crate::model::network::PruneError;
use crate::sample::SampleError;

/// Why there are no scores.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ScoreError {
    /// Asked to stop; the checkpoint is written.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The calibration is empty.
    #[error("there are no calibration points to score on")]
    #[diagnostic(code(score::no_points), help("raise `samples` of the calibrate stage"))]
    NoPoints,
    /// Nothing can be removed.
    #[error("the U-Net holds no unit of this granularity, so that there is nothing to score")]
    #[diagnostic(
        code(score::no_units),
        help(
            "name another `granularity` of the score stage, such as `[resnet, block]`; `laptop-diff inspect` shows what the model holds"
        )
    )]
    NoUnits,
    /// No such criterion.
    #[error("no criterion is called `{name}`; there are {known}")]
    #[diagnostic(code(score::unknown_criterion), help("`laptop-diff list` says what each measures"))]
    UnknownCriterion {
        /// The criterion asked for.
        name: String,
        /// The criteria there are.
        known: String,
    },
    /// A criterion lacks something.
    #[error("`{criterion}` needs {}", need.in_words())]
    #[diagnostic(code(score::needs), help("give it to the stage, or leave the criterion out"))]
    Needs {
        /// The criterion.
        criterion: &'static str,
        /// What it needs.
        need: Need,
    },
    /// Gradients do not fit into memory.
    #[error(
        "`{criterion}` would run out of memory: the U-Net's weights and gradients take {} in f32, and there are {}",
        units::bytes(*needed), units::bytes(*there)
    )]
    #[diagnostic(
        code(score::no_room_for_gradients),
        help(
            "a U-Net cannot be streamed backwards: leave `taylor` and `diff-pruning` out, or score on a machine with more memory"
        )
    )]
    NoRoomForGradients {
        /// The criterion.
        criterion: &'static str,
        /// Bytes of weights and gradients.
        needed: u64,
        /// Bytes that there are.
        there: u64,
    },
    /// A score that is no number.
    #[error("the `{criterion}` of `{unit}` is {value}; it must be a finite number")]
    #[diagnostic(
        code(score::not_finite),
        help("the U-Net without `{unit}` overflows: score it in f32 or bf16, and check its weights")
    )]
    NotFinite {
        /// The unit.
        unit: UnitId,
        /// The criterion.
        criterion: &'static str,
        /// The value found.
        value: f64,
    },
    /// A joint loss that is no number.
    #[error("without these {units} units together the loss is {value}; it must be a finite number")]
    #[diagnostic(
        code(score::joint_not_finite),
        help("the U-Net without them overflows: load it in f32 or bf16, and check its weights")
    )]
    JointNotFinite {
        /// How many units were removed at once.
        units: usize,
        /// The value found.
        value: f64,
    },
    /// Units that cannot be removed together.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Prune(#[from] PruneError),
    /// The weights cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// The U-Net cannot be built to be differentiated.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(Box<ModelError>),
    /// A timestep that the schedule does not know.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sample(#[from] SampleError),
    /// Pictures could not be drawn or judged.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pictures(Box<dyn Diagnostic + Send + Sync>),
    /// The sums so far cannot be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(score::checkpoint), help("free some space, or delete this file to begin anew"))]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(score::tensor), help("if memory is short, walk fewer points or variants at once"))]
    Tensor(#[from] candle_core::Error),
}

impl From<ModelError> for ScoreError {
    fn from(error: ModelError) -> Self {
        // Boxed, because it is larger than the other variants.
        Self::Model(Box::new(error))
    }
}
