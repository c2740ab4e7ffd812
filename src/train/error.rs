//! Errors of the training engine.

use miette::Diagnostic;

use super::collective::CollectiveError;

/// An error of the training engine.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum TrainError {
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(train::tensor))]
    Tensor(#[from] candle_core::Error),
    /// Another rank was lost.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ranks(#[from] CollectiveError),
}
