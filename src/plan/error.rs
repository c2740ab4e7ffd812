//! Errors of planning.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::StageId;
use crate::cache::CacheError;
use crate::config::ConfigError;

/// Why a pipeline cannot be planned.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum PlanError {
    /// The pipeline is wrong, or a file of it is missing.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    /// The cache cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// A file exists but cannot be read.
    #[error("stage `{stage}` cannot read its `{parameter}`: {source}")]
    #[diagnostic(code(plan::unreadable_input), help("check {} and its permissions", path.display()))]
    Input {
        /// The stage.
        stage: StageId,
        /// The parameter that names the file.
        parameter: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
