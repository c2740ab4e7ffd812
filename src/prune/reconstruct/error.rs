//! Why a pruned model cannot be reconstructed.

use miette::Diagnostic;

use crate::base::{FileError, Interrupted};
use crate::model::files::weights::WeightsError;

/// Why a pruned model cannot be reconstructed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ReconstructError {
    /// The student is not what pruning makes of the teacher.
    #[error("the student is not pruned from the teacher: they differ at `{path}`")]
    #[diagnostic(
        code(reconstruct::mismatch),
        help(
            "`teacher` must be the model that the student was pruned from; a student whose `layout` numbers layers anew cannot be reconstructed"
        )
    )]
    Mismatch {
        /// The path of a step.
        path: String,
    },
    /// There are not enough points to hold some out.
    #[error(
        "{points} calibration points are too few: {held_out} are held out, and at least one must be left"
    )]
    #[diagnostic(
        code(reconstruct::points),
        help("give more `samples` to `calibrate`: 512 are a good number, one per prompt")
    )]
    Points {
        /// All points.
        points: usize,
        /// Those held out.
        held_out: usize,
    },
    /// The sums of a layer do not fit into memory.
    #[error("the sums for `{layer}` take {needed}, but only {free} of memory are free")]
    #[diagnostic(
        code(reconstruct::memory),
        help("leave out `conv2` in `kinds`, or use a machine with more memory")
    )]
    Memory {
        /// The layer.
        layer: String,
        /// What its sums take.
        needed: String,
        /// What is free.
        free: String,
    },
    /// A model predicts what is no number.
    #[error("the joint loss is {loss} before anything is reconstructed")]
    #[diagnostic(
        code(reconstruct::not_finite),
        help(
            "write `dtype: bf16` or `f32` in the stage that loads the teacher, and look at the calibration points"
        )
    )]
    NotFinite {
        /// The loss.
        loss: f64,
    },
    /// The student's weights cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// A file of the checkpoint.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// It was asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(reconstruct::tensor))]
    Tensor(#[from] candle_core::Error),
}
