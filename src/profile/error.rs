//! Errors of timing units.

use miette::Diagnostic;

use crate::base::Interrupted;

/// An error of timing units.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProfileError {
    /// The run was interrupted.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(profile::tensor), help("if memory runs out, lower `batch` of the profile stage"))]
    Tensor(#[from] candle_core::Error),
}
