//! How submitting, asking or cancelling fails.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::FileError;
use crate::run::RunError;

/// Why jobs could not be submitted, found or cancelled.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SlurmError {
    /// The run cannot begin.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(#[from] RunError),
    /// A command of Slurm is not on this machine.
    #[error("there is no `{command}` on this machine")]
    #[diagnostic(
        code(slurm::absent),
        help(
            "type the command on a login node of the cluster, or load the module of Slurm first; without `--executor slurm` the \
             pipeline runs on this machine"
        )
    )]
    Absent {
        /// The command.
        command: &'static str,
    },
    /// Slurm refused a command.
    #[error("`{command}` says: {said}")]
    #[diagnostic(code(slurm::refused), help("{help}"))]
    Refused {
        /// The command.
        command: &'static str,
        /// Its own words.
        said: String,
        /// What to change.
        help: String,
    },
    /// Jobs of another version of the run are in the queue.
    #[error("jobs of an earlier `{run}` are in the queue, with another {what}")]
    #[diagnostic(
        code(slurm::other_run),
        help(
            "wait until they end, or cancel them by `laptop-diff cancel {run}`, or give this run another name by `--set name=...`"
        )
    )]
    OtherRun {
        /// The run.
        run: String,
        /// What differs.
        what: &'static str,
    },
    /// The processes do not divide evenly.
    #[error("`{stage}` asks for {ranks} ranks on {nodes} nodes")]
    #[diagnostic(code(slurm::ranks), help("make `ranks` of the setting `slurm` a multiple of `nodes`"))]
    Ranks {
        /// The kind of stage.
        stage: &'static str,
        /// Processes.
        ranks: usize,
        /// Machines.
        nodes: usize,
    },
    /// The run has no jobs.
    #[error("{} was not submitted to Slurm", folder.display())]
    #[diagnostic(
        code(slurm::no_jobs),
        help(
            "`--executor slurm` of `run` and `sweep` does that; Ctrl-C or SIGTERM stops a run on this machine"
        )
    )]
    NoJobs {
        /// The run folder.
        folder: PathBuf,
    },
    /// A file of the run folder cannot be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
}
