//! How a stage fails, sorted by what the user can do about it.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::Interrupted;

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
