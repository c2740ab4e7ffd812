//! Why a report cannot be written.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::FileError;

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ReportError {
    /// The folder is not that of a run.
    #[error("{} is not a run folder: {source}", path.display())]
    #[diagnostic(
        code(report::no_run),
        help("give a folder that `laptop-diff run` wrote, such as runs/nano50")
    )]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// Why its `run.json` cannot be read.
        source: io::Error,
    },
    /// The page could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Write(#[from] FileError),
}
