//! Why a selection cannot be applied to a model.

use miette::Diagnostic;

use super::write_error::WriteError;
use crate::base::FileError;
use crate::model::ModelError;
use crate::model::network::PruneError;
use crate::select::SelectError;

/// A selection that cannot be applied.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ApplyError {
    /// The selection names units that the model does not have.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Units(#[from] PruneError),
    /// The selection's layout is for another U-Net.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Layout(#[from] SelectError),
    /// The pruned model cannot be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Write(Box<WriteError>),
}

impl From<ModelError> for ApplyError {
    fn from(error: ModelError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<FileError> for ApplyError {
    fn from(error: FileError) -> Self {
        WriteError::from(error).into()
    }
}

impl From<WriteError> for ApplyError {
    fn from(error: WriteError) -> Self {
        Self::Write(Box::new(error))
    }
}
