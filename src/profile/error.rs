//! Why units cannot be timed.

use miette::Diagnostic;

use crate::base::Interrupted;

/// Why units cannot be timed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProfileError {
    /// The run was interrupted.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(profile::tensor), help("if memory is short, lower `batch` of the profile stage"))]
    Tensor(#[from] candle_core::Error),
}
