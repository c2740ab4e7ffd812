//! How a stage fails, sorted by what the user can do about it.

use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::base::Interrupted;
use crate::model::directory::ModelError;
use crate::model::weights::WeightsError;
use crate::select::SelectError;

/// The exit code follows from the variant.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StageError {
    /// The pipeline asks for something that cannot be (exit code 3).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pipeline(Box<dyn Diagnostic + Send + Sync>),
    /// An input file is missing or wrong (exit code 4).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Input(Box<dyn Diagnostic + Send + Sync>),
    /// Asked to stop; the checkpoint is written (exit code 130).
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A file could not be read or written (exit code 6; 4 where it is an input).
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(stage::file))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A tensor operation failed (exit code 6, or 5 when memory ran out).
    #[error(transparent)]
    #[diagnostic(code(stage::tensor))]
    Tensor(#[from] candle_core::Error),
}

impl StageError {
    /// The user's pipeline asks for what cannot be.
    pub(super) fn pipeline(error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Pipeline(Box::new(error))
    }

    /// The user's file is missing or wrong.
    pub(super) fn input(error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self::Input(Box::new(error))
    }

    /// For `map_err`: names the file.
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<ModelError> for StageError {
    fn from(error: ModelError) -> Self {
        Self::input(error)
    }
}

impl From<WeightsError> for StageError {
    fn from(error: WeightsError) -> Self {
        Self::input(error)
    }
}

impl From<SelectError> for StageError {
    fn from(error: SelectError) -> Self {
        Self::pipeline(error)
    }
}
