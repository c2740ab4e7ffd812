//! Errors of retraining.

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::base::{FileError, Interrupted};
use crate::data::DataError;
use crate::sample::SampleError;
use crate::train::TrainError;
use crate::train::collective::CollectiveError;

/// An error of retraining.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum DistillError {
    /// A loss or the gradient norm became infinite or NaN.
    #[error("{term} is {value} at step {step} of {steps}")]
    #[diagnostic(
        code(distill::not_finite),
        help(
            "the weights before this step were sound, and {last}: lower `learning-rate` (now {learning_rate:e}), lengthen `warm-up-steps`, \
             or lower `gradient-clip`; at step 0 look for broken weights or latents instead, with `laptop-diff inspect`"
        )
    )]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// The number of steps.
        steps: u64,
        /// `task loss`, `output loss`, `feature loss of mid_block`, `gradient norm`.
        term: String,
        /// Its value.
        value: f32,
        /// The learning rate at that step.
        learning_rate: f64,
        /// What is known of the last checkpoint.
        last: String,
    },
    /// The loss stayed far above what it was.
    #[error(
        "the training diverges: at step {step} of {steps} the loss is {total:.3e}, and it has been above ten times its median \
         of {median:.3e} for twenty steps; the largest part is that of {term}"
    )]
    #[diagnostic(
        code(distill::diverged),
        help(
            "{last}: lower `learning-rate` (now {learning_rate:e}), lengthen `warm-up-steps`, or lower `gradient-clip`; the losses up \
             to here are in the report"
        )
    )]
    Diverged {
        /// The step, counted from 0.
        step: u64,
        /// The number of steps.
        steps: u64,
        /// The loss.
        total: f32,
        /// What it was compared with.
        median: f64,
        /// `task`, `output` or `features`.
        term: String,
        /// The learning rate at that step.
        learning_rate: f64,
        /// What is known of the last checkpoint.
        last: String,
    },
    /// There are not more rows than are held out.
    #[error("`validation.rows` holds out {asked} rows, but the data have only {rows}")]
    #[diagnostic(
        code(distill::held_out),
        help("lower `training.validation.rows`, or give the stage more data")
    )]
    HeldOut {
        /// How many are to be held out.
        asked: usize,
        /// How many there are.
        rows: usize,
    },
    /// Student and teacher cannot be compared.
    #[error("student and teacher do not match: {reason}")]
    #[diagnostic(
        code(distill::mismatch),
        help(
            "the student must be this teacher with units removed; check that both stages name the same model"
        )
    )]
    Mismatch {
        /// What differs, with both values.
        reason: String,
    },
    /// A pattern of `freeze` that stands for nothing.
    #[error("`{pattern}` of `freeze` matches no tensor of the student")]
    #[diagnostic(
        code(distill::nothing_frozen),
        help(
            "write the whole name of a tensor, such as `conv_in.weight`, or a pattern, such as `mid_block.*`; units that were removed have no tensors"
        )
    )]
    NothingFrozen {
        /// The pattern.
        pattern: String,
    },
    /// More memory than there is.
    #[error("{statement}; only {free} are free")]
    #[diagnostic(
        code(distill::memory),
        help("change `training`: {savings}; or use a device with more memory")
    )]
    Memory {
        /// What training would hold.
        statement: String,
        /// What is free.
        free: String,
        /// Changes of parameters that help.
        savings: String,
    },
    /// `freeze` stands for every tensor.
    #[error("`freeze` leaves no tensor of the student to train")]
    #[diagnostic(code(distill::all_frozen), help("remove some of its patterns"))]
    AllFrozen,
    /// The training data cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Data(Box<DataError>),
    /// A file could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// Asked to stop; the checkpoint is written.
    #[error(transparent)]
    #[diagnostic(code(distill::interrupted))]
    Interrupted(#[from] Interrupted),
    /// Another rank was lost.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ranks(Box<CollectiveError>),
    /// The batch cannot be divided.
    #[error("`batch-size` is {batch}; {ranks} ranks need a multiple of {ranks}")]
    #[diagnostic(
        code(distill::uneven),
        help(
            "each rank trains with an equal part of the batch: change `training.batch-size`, or start another number of processes"
        )
    )]
    Uneven {
        /// The batch size.
        batch: usize,
        /// The number of ranks.
        ranks: usize,
    },
    /// Another rank cannot read the checkpoint that rank 0 resumes from.
    #[error("{} is not the checkpoint that rank 0 found there: {reason}", path.display())]
    #[diagnostic(
        code(distill::other_checkpoint),
        help("the folder of the cache must lie on a file system that all ranks share")
    )]
    OtherCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Activations in f16.
    #[error(
        "a retraining cannot compute in f16: most gradients are below 6e-5, where f16 loses precision, and vanish below 6e-8"
    )]
    #[diagnostic(
        code(distill::f16),
        help(
            "write `dtype: bf16` in the stage that loads the teacher; bf16 takes the same memory and has the range of f32"
        )
    )]
    F16,
    /// The noise schedule refused a timestep.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Schedule(#[from] SampleError),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(distill::tensor))]
    Tensor(#[from] candle_core::Error),
}

impl From<DataError> for DistillError {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

impl From<CollectiveError> for DistillError {
    fn from(error: CollectiveError) -> Self {
        Self::Ranks(Box::new(error))
    }
}

impl From<TrainError> for DistillError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Tensor(error) => Self::Tensor(error),
            TrainError::Ranks(error) => error.into(),
        }
    }
}

impl DistillError {
    /// Whether every rank has this error at the same step, so that all of them can go on with something else.
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::Interrupted(_) | Self::NotFinite { .. } | Self::Diverged { .. } | Self::Uneven { .. }
        )
    }

    /// For `map_err`: names the file.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let named = FileError::at(path);
        move |source| Self::File(named(source))
    }
}
