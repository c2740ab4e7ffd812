//! Errors of planning.

use miette::Diagnostic;

use crate::base::{FileError, Interrupted, StageId};
use crate::cache::CacheError;
use crate::config::ConfigError;
use crate::stage::StageError;

/// Why a pipeline cannot be planned.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum PlanError {
    /// The pipeline is invalid, or one of its files is missing.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    /// The cache cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// Asked to stop while files were hashed.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A file exists but cannot be read.
    #[error("stage `{stage}` cannot read its `{parameter}`: {source}")]
    #[diagnostic(code(plan::unreadable_input), help("check the file and its permissions"))]
    Input {
        /// The stage.
        stage: StageId,
        /// The parameter that names the file.
        parameter: String,
        /// The file, and the system's message.
        source: FileError,
    },
    /// Files that users must fetch.
    #[error("the run needs {} that are not on this machine:\n{}", count(files.len()), list(files))]
    #[diagnostic(
        code(plan::missing),
        help(
            "fetch them and run the same command again; `laptop-diff plan` shows what is left, and `--until` runs the stages before"
        )
    )]
    Missing {
        /// What each is and where it comes from, and the parameter that names it.
        files: Vec<(String, String)>,
    },
    /// A file does not hold what the stage needs.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Unfit(Box<Unfit>),
}

/// A file that does not hold what a stage needs.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("stage `{stage}` cannot use its inputs")]
#[diagnostic(code(plan::unfit_input))]
pub struct Unfit {
    /// The stage.
    pub stage: StageId,
    /// What is wrong.
    #[source]
    #[diagnostic_source]
    pub source: StageError,
}

fn count(files: usize) -> String {
    if files == 1 { "a file or folder".to_owned() } else { format!("{files} files or folders") }
}

fn list(files: &[(String, String)]) -> String {
    files.iter().map(|(file, place)| format!("  - {file} [{place}]")).collect::<Vec<_>>().join("\n")
}

impl PlanError {
    /// For `map_err`: names the stage whose files these are.
    pub(super) fn unfit(stage: &StageId) -> impl FnOnce(StageError) -> Self {
        move |source| Self::Unfit(Box::new(Unfit { stage: stage.clone(), source }))
    }
}
