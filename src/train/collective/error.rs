//! How processes fail to find each other, or lose each other.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;

use crate::base::{FileError, Interrupted};

/// An error of several processes that train together.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum CollectiveError {
    /// The connection to another rank ended.
    #[error("rank {rank} on {host} is gone: its connection was closed")]
    #[diagnostic(
        code(ranks::closed),
        help(
            "it was killed, or it ran out of memory; look at its own messages, then run the same command again: the training resumes from its last checkpoint"
        )
    )]
    Closed {
        /// The other rank.
        rank: usize,
        /// Its machine.
        host: String,
    },
    /// Another rank failed and said so.
    #[error("rank {rank} on {host} failed: {reason}")]
    #[diagnostic(
        code(ranks::failed),
        help(
            "mend what it says, then run the same command again: the training resumes from its last checkpoint"
        )
    )]
    Failed {
        /// The other rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// Its error.
        reason: String,
    },
    /// Nothing came from another rank, not even a sign of life.
    #[error("rank {rank} on {host} has been silent for {seconds} seconds")]
    #[diagnostic(
        code(ranks::silent),
        help(
            "its machine or the network between is down, or its process is stopped; when it is up again, run the same command again: the training resumes from its last checkpoint"
        )
    )]
    Silent {
        /// The other rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An earlier exchange failed.
    #[error("the ranks train together no longer: {reason}")]
    #[diagnostic(
        code(ranks::broken),
        help(
            "mend what it says, then run the same command again: the training resumes from its last checkpoint"
        )
    )]
    Broken {
        /// Why.
        reason: String,
    },
    /// An exchange between GPUs failed.
    #[error("the GPUs cannot exchange tensors: {reason}")]
    #[diagnostic(
        code(ranks::cards),
        help(
            "set NCCL_DEBUG=INFO to see what NCCL tries, and NCCL_P2P_DISABLE=1 or NCCL_SOCKET_IFNAME=NAME to make it avoid a way that does not work; then run the same command again: the training resumes from its last checkpoint"
        )
    )]
    Cards {
        /// Why.
        reason: String,
    },
    /// Some ranks never came.
    #[error("{} of {size} ranks did not connect within {seconds} seconds: {}", missing.len(), words(missing))]
    #[diagnostic(
        code(ranks::missing),
        help(
            "all ranks must be started together, with the same command, in the same folder of a file system that they share; firewalls must let them connect to each other"
        )
    )]
    Missing {
        /// Those that did not connect.
        missing: Vec<usize>,
        /// The number of ranks.
        size: usize,
        /// How long they were waited for.
        seconds: u64,
    },
    /// A rank did not find rank 0.
    #[error("rank {rank} of {size} did not reach rank 0 within {seconds} seconds: {reason}")]
    #[diagnostic(
        code(ranks::unreachable),
        help("all ranks must be started together, with the same command, in the same folder of a file system that they share; rank 0 writes its address to {}", file.display())
    )]
    Unreachable {
        /// This rank.
        rank: usize,
        /// The number of ranks.
        size: usize,
        /// How long it tried.
        seconds: u64,
        /// The last failure.
        reason: String,
        /// The file with the address.
        file: PathBuf,
    },
    /// Two versions of the program.
    #[error("rank 0 runs laptop-diff {found}, this rank {needed}")]
    #[diagnostic(code(ranks::version), help("start the same program on all machines"))]
    Version {
        /// Of rank 0.
        found: String,
        /// Of this process.
        needed: String,
    },
    /// A process of `--ranks` ended before it connected.
    #[error("rank {rank} ended before the training began ({status})")]
    #[diagnostic(code(ranks::ended), help("its own message stands above"))]
    Ended {
        /// The rank.
        rank: usize,
        /// Its exit status.
        status: String,
    },
    /// The environment of a launcher makes no sense.
    #[error("the environment variable `{variable}` is `{found}`; {needed} is needed")]
    #[diagnostic(
        code(ranks::environment),
        help("srun, mpirun and torchrun set it for each process; unset it to run one process alone")
    )]
    Environment {
        /// Its name.
        variable: String,
        /// Its value.
        found: String,
        /// What was expected.
        needed: String,
    },
    /// The number of ranks was given twice, differently.
    #[error("`--ranks {asked}` was given, but {launcher} started {size} processes")]
    #[diagnostic(code(ranks::ranks), help("leave out --ranks, which starts processes by itself"))]
    Twice {
        /// By the flag.
        asked: usize,
        /// Who started this process.
        launcher: &'static str,
        /// How many it started.
        size: usize,
    },
    /// A socket or a process of this machine failed.
    #[error("{action} failed: {source}")]
    #[diagnostic(
        code(ranks::system),
        help("check the limits on open files and processes, and the firewall of this machine")
    )]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The file with the address could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// Asked to stop while waiting for others.
    #[error(transparent)]
    #[diagnostic(code(ranks::interrupted))]
    Interrupted(#[from] Interrupted),
}

impl CollectiveError {
    /// For `map_err`: names what was tried.
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// `1, 2, 5`.
fn words(ranks: &[usize]) -> String {
    ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
