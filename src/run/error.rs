//! How a run fails.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use super::{ExitCode, Failure};
use crate::backend::DeviceChoice;
use crate::base::shown::one_line;
use crate::base::{FileError, Interrupted, StageId, names};
use crate::cache::CacheError;
use crate::plan::PlanError;
use crate::stage::StageError;

/// Why a run failed; [`RunError::exit_code`] says so to a shell.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RunError {
    /// `--until` or `--force` names no stage (exit code 2).
    #[error("`{flag} {found}`: this pipeline has no such stage")]
    #[diagnostic(code(run::unknown_stage), help("{}", names::help(found.as_str(), known)))]
    UnknownStage {
        /// The flag.
        flag: &'static str,
        /// What it was given.
        found: StageId,
        /// The stages of the file, or where a branch was named all of a sweep.
        known: Vec<String>,
    },
    /// The pipeline cannot be run (exit code 3, or 4 for a file that is missing or unreadable).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] PlanError),
    /// The device cannot be used (exit code 3).
    #[error("the device `{asked}` cannot be used: {source}")]
    #[diagnostic(code(run::device), help("`--device cpu` works everywhere"))]
    Device {
        /// What was asked for.
        asked: DeviceChoice,
        /// What the driver says.
        source: candle_core::Error,
    },
    /// The cache cannot be used (exit code 4).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// The run folder cannot be written (exit code 4).
    #[error("could not write the run folder")]
    #[diagnostic(code(run::folder), help("make the folder writable and free space on its disk"))]
    Folder(#[source] FileError),
    /// A stage gave an error (the exit code is that of its cause).
    #[error("stage `{stage}` failed")]
    #[diagnostic(code(run::stage))]
    Stage {
        /// The stage.
        stage: StageId,
        /// By its cause.
        code: ExitCode,
        /// The cause.
        #[source]
        #[diagnostic_source]
        source: StageError,
    },
    /// A stage panicked (exit code 1).
    #[error("BUG: stage `{stage}` panicked: {message}")]
    #[diagnostic(
        code(run::bug),
        help("this is a bug in laptop-diff: please report it with the pipeline file and the lines above")
    )]
    Bug {
        /// The stage.
        stage: StageId,
        /// What it said.
        message: String,
    },
    /// A stage failed in a worker (the exit code is that of its cause).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Elsewhere(Failure),
    /// A worker ended before its stage did (exit code 6, or the worker's own).
    #[error("the process of stage `{stage}` ended: {status}")]
    #[diagnostic(
        code(run::worker_gone),
        help(
            "if the system ended it because memory ran out, give fewer --jobs or a lower --memory; the same command resumes"
        )
    )]
    Gone {
        /// The stage.
        stage: StageId,
        /// By the status.
        code: ExitCode,
        /// How it ended.
        status: String,
    },
    /// A worker could not be started or reached (exit code 6).
    #[error("could not start a process for stage `{stage}`")]
    #[diagnostic(code(run::worker), help("give fewer --jobs, or raise the system's limit of processes"))]
    Worker {
        /// The stage.
        stage: StageId,
        /// The system's error.
        source: io::Error,
    },
    /// A stage failed in a job of a batch system, or its job ended (the exit code is that of its cause).
    #[error("{text}")]
    #[diagnostic(code(run::job), help("what it printed is in {}", log.display()))]
    Job {
        /// The stage.
        stage: StageId,
        /// The error, or how the job ended.
        text: String,
        /// By its cause.
        code: ExitCode,
        /// What the job printed.
        log: PathBuf,
    },
    /// A job has to make an artefact, or has made it, and the cache lacks it (exit code 4).
    #[error("stage `{stage}` has no artefact in the cache, and this process is not the one to make it")]
    #[diagnostic(code(run::not_made), help("run the command again that submitted the run"))]
    NotMade {
        /// The stage.
        stage: StageId,
    },
    /// What a stage reads changed while the run went on (exit code 4).
    #[error("what stage `{stage}` reads changed after the run had begun")]
    #[diagnostic(code(run::changed), help("nothing of the stage was kept: run the same command again"))]
    Changed {
        /// The stage.
        stage: StageId,
    },
    /// Another rank than the first failed in its part of a training (the exit code is that of its cause).
    #[error("rank {rank} failed")]
    #[diagnostic(code(run::rank))]
    Rank {
        /// Its number.
        rank: usize,
        /// By its cause.
        code: ExitCode,
        /// The cause.
        #[source]
        #[diagnostic_source]
        source: StageError,
    },
    /// Gates were not met; everything else is done and written (exit code 7).
    #[error("{}", missed.join("; "))]
    #[diagnostic(
        code(run::gates),
        help("the results are in the run folder; lower the gates of the pipeline if they are good enough")
    )]
    Gates {
        /// The gates, with what was found.
        missed: Vec<String>,
    },
    /// The run was asked to stop (exit code 130).
    #[error(transparent)]
    #[diagnostic(code(run::interrupted))]
    Interrupted(#[from] Interrupted),
    /// With `--keep-going`, more than one stage failed (exit code of the first).
    #[error("{} stages failed", errors.len())]
    #[diagnostic(code(run::several))]
    Several {
        /// Their errors, in order.
        #[related]
        errors: Vec<RunError>,
    },
}

impl RunError {
    /// The error and its causes in one line.
    pub(super) fn line(&self) -> String {
        one_line(self)
    }
}
