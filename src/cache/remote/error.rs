//! What a command that works with a remote ends with. A run never ends because of a remote.

use miette::Diagnostic;

use crate::base::Interrupted;
use crate::cache::CacheError;

/// Why the remote cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RemoteError {
    /// The settings name none (exit code 3).
    #[error("the settings name no remote")]
    #[diagnostic(
        code(remote::none),
        help(
            "write `remote: s3://BUCKET/PREFIX`, or a folder, into laptop-diff.yaml, or give --remote; `laptop-diff schema settings` \
             describes it"
        )
    )]
    None,
    /// The program was built without this kind (exit code 3).
    #[error("this laptop-diff was built without remotes in buckets, so it cannot use {address}")]
    #[diagnostic(
        code(remote::not_built),
        help("build it with `cargo install --features remote`; a folder needs no feature")
    )]
    NotBuilt {
        /// The remote's address.
        address: String,
    },
    /// It does not do what is asked (exit code 4).
    #[error("{address} {text}")]
    #[diagnostic(
        code(remote::trouble),
        help("nothing is lost: the same command goes on where this one ended")
    )]
    Trouble {
        /// The remote's address.
        address: String,
        /// What happened.
        text: String,
    },
    /// The cache cannot be used (exit code 4).
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cache(#[from] CacheError),
    /// Asked to stop (exit code 130).
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}
