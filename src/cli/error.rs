//! How a command can fail, and with which exit code.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::names::{self, UnknownName};
use crate::base::{FileError, StageId};
use crate::cache::{CacheError, Damage, RemoteError};
use crate::config::ConfigError;
use crate::model::ModelError;
use crate::plan::PlanError;
use crate::prune::ExportError;
use crate::report::ReportError;
use crate::run::{ExitCode, RunError};
use crate::slurm::SlurmError;
use crate::stage::{BadValue, StageError};
use crate::survey::SurveyError;
use crate::train::collective::CollectiveError;

/// An error as the user sees it.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(super) enum CliError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Survey(Box<SurveyError>),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Export(Box<ExportError>),
    #[error(transparent)]
    #[diagnostic(transparent)]
    UnknownName(#[from] UnknownName),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ranks(#[from] CollectiveError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Slurm(#[from] SlurmError),
    #[error("{} is not a name for a single-file model", path.display())]
    #[diagnostic(
        code(cli::extension),
        help("programs recognise it by its extension: give --output a name that ends in .safetensors")
    )]
    Extension { path: PathBuf },
    #[error("two LoRAs would be written to {}", path.display())]
    #[diagnostic(code(cli::same_name), help("the name comes from the file's own: rename one of them"))]
    SameName { path: PathBuf },
    #[error("{} exists already", path.display())]
    #[diagnostic(code(cli::exists), help("give another path with --output, or remove it"))]
    Exists { path: PathBuf },
    #[error("{damage}")]
    #[diagnostic(code(cli::damaged), help("{help}"))]
    Damaged { damage: Damage, help: String },
    #[error("{} is not there yet: {stopped}", path.display())]
    #[diagnostic(code(cli::not_finished), help("{help}"))]
    NotFinished { path: PathBuf, stopped: String, help: String },
    #[error("there is no {}: {reason}", path.display())]
    #[diagnostic(
        code(cli::no_checkpoint),
        help(
            "`STAGE@latest` is the newest checkpoint of a training that is not over, `STAGE@STEP` that of a step; a \
             finished stage is named without `@`"
        )
    )]
    NoCheckpoint { path: PathBuf, reason: String },
    #[error("{} is {found}; {needed} or a new name is needed", path.display())]
    #[diagnostic(code(cli::target), help("give another path, or remove it"))]
    Target { path: PathBuf, found: String, needed: &'static str },
    #[error("`cache gc` was not told what may go")]
    #[diagnostic(
        code(cli::no_scope),
        help(
            "add --older-than 30d, --max-size 200GB, --checkpoints-older-than 14d or --all; --dry-run shows what would go"
        )
    )]
    NoScope,
    #[error("there is no run {}: neither a run folder nor a run in {}", given.display(), runs.display())]
    #[diagnostic(code(cli::no_run), help("{}; `laptop-diff runs` lists them", names::help(&given.display().to_string(), known)))]
    NoRun { given: PathBuf, runs: PathBuf, known: Vec<String> },
    #[error("a process is working on the run in {}", folder.display())]
    #[diagnostic(code(cli::run_is_running), help("stop it first, or wait until it ends"))]
    RunIsRunning { folder: PathBuf },
    #[error("stage `{stage}` of {} has no key: the run ended before its turn", folder.display())]
    #[diagnostic(
        code(cli::no_key_yet),
        help("`laptop-diff plan` says what a stage that has not run depends on")
    )]
    NoKeyYet { stage: StageId, folder: PathBuf },
    #[error("`{input}`, which `{stage}` needs, is not in the cache as it was recorded")]
    #[diagnostic(
        code(cli::input_not_cached),
        help("verify the whole run without --stage; `laptop-diff plan` says what changed")
    )]
    InputNotCached { stage: StageId, input: StageId },
    #[error("{} has no {part}", model.display())]
    #[diagnostic(
        code(cli::model_part),
        help(
            "a pipeline needs a whole model: tokenizer, text encoder, U-Net, autoencoder and scheduler; `laptop-diff inspect` shows what is there"
        )
    )]
    ModelPart { model: PathBuf, part: &'static str },
    #[error("{found} with `{given}`")]
    #[diagnostic(
        code(cli::no_key),
        help("`laptop-diff cache ls` prints the keys; give at least six digits of one")
    )]
    NoKey { given: String, found: &'static str },
    #[error("`{given}` {}", if *several { "fits several pins" } else { "is not pinned" })]
    #[diagnostic(code(cli::no_pin), help("{}", names::help(given, known)))]
    NoPin { given: String, several: bool, known: Vec<String> },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Stage(#[from] StageError),
    #[error("{} has no `sweep:` left and no --over was given", path.display())]
    #[diagnostic(
        code(cli::nothing_to_sweep),
        help("add --over ID.PARAMETER=VALUE,VALUE as in --over selection.ratio=0.3,0.5")
    )]
    NothingToSweep { path: PathBuf },
    #[error("`{flag}` does not go with several ranks: all of them do one training at a time")]
    #[diagnostic(code(cli::jobs_of_ranks), help("leave `{flag}` out, or start one process alone"))]
    JobsOfRanks { flag: &'static str },
    #[error(
        "`{flag}` does not go with `--executor slurm`: each stage or chain of stages is a job of its own"
    )]
    #[diagnostic(
        code(cli::flag_of_local),
        help("leave `{flag}` out; the setting `slurm` says what jobs ask for")
    )]
    FlagOfLocal { flag: &'static str },
    #[error("a page has all tables, so --table needs another --format")]
    #[diagnostic(code(cli::table_of_page), help("add --format md, json or csv"))]
    TableOfPage,
    #[error("{}", .0.message)]
    #[diagnostic(code(cli::flag), help("{}", .0.help.as_deref().unwrap_or("`laptop-diff generate --help` describes each flag")))]
    Flag(BadValue),
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    #[error("cannot start the threads that compute: {source}")]
    #[diagnostic(code(cli::threads), help("lower the setting `threads`"))]
    Threads { source: rayon::ThreadPoolBuildError },
}

impl From<SurveyError> for CliError {
    fn from(error: SurveyError) -> Self {
        Self::Survey(Box::new(error))
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl CliError {
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(error) => error.into(),
            Self::Cache(error) => error.into(),
            Self::Remote(error) => match error {
                RemoteError::None | RemoteError::NotBuilt { .. } => ExitCode::Pipeline,
                RemoteError::Trouble { .. } => ExitCode::File,
                RemoteError::Cache(error) => error.into(),
                RemoteError::Interrupted(_) => ExitCode::Interrupted,
            },
            Self::Plan(error) => error.into(),
            Self::Run(error) => error.into(),
            Self::Slurm(error) => match error {
                SlurmError::Run(error) => error.into(),
                SlurmError::Refused { .. } | SlurmError::Ranks { .. } => ExitCode::Pipeline,
                SlurmError::NoJobs { .. } => ExitCode::Arguments,
                SlurmError::Absent { .. } | SlurmError::OtherRun { .. } | SlurmError::File(_) => {
                    ExitCode::File
                }
            },
            Self::Export(error) => match **error {
                ExportError::Unrecognised { .. } => ExitCode::Arguments,
                // Both are of the machine or of this program, not of the file that was given.
                ExportError::Compute(_) | ExportError::SelfCheck { .. } => ExitCode::Stage,
                _ => ExitCode::File,
            },
            Self::Ranks(error) => match error {
                CollectiveError::Environment { .. } | CollectiveError::Twice { .. } => ExitCode::Arguments,
                CollectiveError::Interrupted(_) => ExitCode::Interrupted,
                CollectiveError::File(_) => ExitCode::File,
                _ => ExitCode::Stage,
            },
            Self::ModelPart { .. }
            | Self::InputNotCached { .. }
            | Self::Exists { .. }
            | Self::Target { .. }
            | Self::RunIsRunning { .. } => ExitCode::File,
            Self::Damaged { .. } | Self::NotFinished { .. } | Self::NoCheckpoint { .. } => ExitCode::File,
            // There is no pipeline: the flags ask for it.
            Self::Stage(StageError::Pipeline(_)) => ExitCode::Arguments,
            Self::Stage(error) => ExitCode::of_stage(error, |_| true),
            Self::Flag(_)
            | Self::Extension { .. }
            | Self::SameName { .. }
            | Self::NothingToSweep { .. }
            | Self::JobsOfRanks { .. }
            | Self::FlagOfLocal { .. }
            | Self::NoScope
            | Self::NoRun { .. }
            | Self::NoKey { .. }
            | Self::NoKeyYet { .. }
            | Self::NoPin { .. }
            | Self::TableOfPage
            | Self::Report(ReportError::NoTable { .. })
            | Self::UnknownName(_) => ExitCode::Arguments,
            Self::Model(_) | Self::Survey(_) | Self::Report(_) | Self::File(_) => ExitCode::File,
            Self::Threads { .. } => ExitCode::Pipeline,
        }
    }
}
