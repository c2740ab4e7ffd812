//! Errors of stages, classified by what the user can do about them.

use std::path::Path;

use miette::Diagnostic;

use super::memory::NotEnoughMemory;
use crate::base::shown::one_line;
use crate::base::{FileError, Interrupted};
use crate::data::DataError;
use crate::distill::DistillError;
use crate::metric::MetricError;
use crate::model::ModelError;
use crate::model::files::hub::HubError;
use crate::model::files::weights::WeightsError;
use crate::profile::ProfileError;
use crate::prune::{ApplyError, ExportError, ReconstructError, WriteError};
use crate::sample::SampleError;
use crate::score::ScoreError;
use crate::select::SelectError;
use crate::survey::SurveyError;
use crate::train::collective::CollectiveError;

/// The exit code follows from the variant.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StageError {
    /// The pipeline asks for something impossible (exit code 3).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pipeline(Box<dyn Diagnostic + Send + Sync>),
    /// An input file is missing or wrong (exit code 4).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(Box<dyn Diagnostic + Send + Sync>),
    /// The work cannot fit into memory (exit code 5).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// The work itself failed (exit code 6).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Work(Box<dyn Diagnostic + Send + Sync>),
    /// The stage was asked to stop; its checkpoint is written (exit code 130).
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A file could not be read or written (exit code 6; 4 if it is an input).
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// A tensor operation failed (exit code 6, or 5 when memory ran out).
    #[error(transparent)]
    #[diagnostic(code(stage::tensor))]
    Tensor(#[from] candle_core::Error),
}

impl StageError {
    /// The pipeline asks for something impossible.
    pub(super) fn pipeline(error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Pipeline(Box::new(error))
    }

    /// The user's file is missing or wrong.
    pub(super) fn input(error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Input(Box::new(error))
    }

    /// The request was valid, but the work failed.
    pub(super) fn work(error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Work(Box::new(error))
    }

    /// The error and its causes in one line.
    pub fn line(&self) -> String {
        one_line(self)
    }

    /// For `map_err`: names the file.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let named = FileError::at(path);
        move |source| Self::File(named(source))
    }
}

/// How the errors of each module are classified.
macro_rules! sort {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for StageError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

sort! {
    ModelError => input,
    WeightsError => input,
    SampleError => input,
    SurveyError => input,
    SelectError => pipeline,
}

impl From<HubError> for StageError {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            other => Self::input(other),
        }
    }
}

impl From<WriteError> for StageError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Model(ModelError::Tensor(error)) => Self::Tensor(error),
            other => Self::input(other),
        }
    }
}

impl From<ApplyError> for StageError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Layout(error) => error.into(),
            ApplyError::Write(error) => (*error).into(),
            units @ ApplyError::Units(_) => Self::input(units),
        }
    }
}

impl From<ExportError> for StageError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Compute(error) => Self::Tensor(error),
            ExportError::Write(error) => (*error).into(),
            ExportError::SelfCheck { .. } => Self::work(error),
            ExportError::Unrecognised { .. } => Self::pipeline(error),
            ExportError::NoTarget { .. }
            | ExportError::LinearMap { .. }
            | ExportError::LoraLayer { .. }
            | ExportError::LoraWidth { .. }
            | ExportError::LoraTwice { .. } => Self::input(error),
        }
    }
}

impl From<ProfileError> for StageError {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            ProfileError::Tensor(error) => Self::Tensor(error),
        }
    }
}

impl From<ReconstructError> for StageError {
    fn from(error: ReconstructError) -> Self {
        match error {
            ReconstructError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            ReconstructError::Tensor(error) => Self::Tensor(error),
            ReconstructError::File(error) => Self::File(error),
            ReconstructError::Weights(error) => error.into(),
            error @ (ReconstructError::Mismatch { .. } | ReconstructError::Points { .. }) => {
                Self::pipeline(error)
            }
            error @ (ReconstructError::NotFinite { .. } | ReconstructError::Memory { .. }) => {
                Self::work(error)
            }
        }
    }
}

impl From<CollectiveError> for StageError {
    fn from(error: CollectiveError) -> Self {
        match error {
            CollectiveError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            other => Self::work(other),
        }
    }
}

impl From<DistillError> for StageError {
    fn from(error: DistillError) -> Self {
        match error {
            DistillError::Interrupted(interrupted) => Self::Interrupted(interrupted),
            DistillError::Tensor(error) => Self::Tensor(error),
            DistillError::NothingFrozen { .. }
            | DistillError::AllFrozen
            | DistillError::HeldOut { .. }
            | DistillError::Uneven { .. }
            | DistillError::Mismatch { .. } => Self::pipeline(error),
            other => Self::work(other),
        }
    }
}

/// The same for errors that may also be a request to stop.
macro_rules! sort_interruptible {
    ($($error:ident => $variant:ident),* $(,)?) => {
        $(impl From<$error> for StageError {
            fn from(error: $error) -> Self {
                match error {
                    $error::Interrupted(interrupted) => Self::Interrupted(interrupted),
                    $error::Tensor(error) => Self::Tensor(error),
                    other => Self::$variant(other),
                }
            }
        })*
    };
}

sort_interruptible! {
    DataError => input,
    ScoreError => work,
    MetricError => work,
}
