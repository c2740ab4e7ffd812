//! What can go wrong between a name and its files, and what to do about it.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::base::Interrupted;
use crate::model::error::ModelError;

/// A repository that cannot be had.
#[derive(Debug, Error, Diagnostic)]
pub enum HubError {
    /// The program has no client for the hub.
    #[error(
        "there is no folder `{id}`, and this laptop-diff is built without the hub, where it might be a model"
    )]
    #[diagnostic(
        code(hub::not_built),
        help(
            "a folder's path counts from the folder of the pipeline file; to load models of the hub by their \
             name, build with `cargo build --release --features hub`"
        )
    )]
    NotBuilt {
        /// The name.
        id: String,
    },
    /// The hub cannot be reached, and its cache does not hold what is needed.
    #[error("the hub cannot be reached ({reason}), and its cache lacks {what} of `{id}` at `{revision}`")]
    #[diagnostic(
        code(hub::offline),
        help(
            "where there is a network, run `hf download {id} --revision {revision}` and bring the folder \
             {} along; or give the path of a model's folder instead of its name", cache.display()
        )
    )]
    Offline {
        /// The repository.
        id: String,
        /// The revision that was asked for.
        revision: String,
        /// What is missing.
        what: String,
        /// Why the hub was not asked.
        reason: String,
        /// Where the hub's files are kept.
        cache: PathBuf,
    },
    /// The hub knows no such repository or revision.
    #[error("the hub has no `{id}` at revision `{revision}`, nor is there a folder of that name")]
    #[diagnostic(
        code(hub::not_found),
        help(
            "look for its name and its branches at {address}; a folder's path counts from the folder of the \
             pipeline file"
        )
    )]
    NotFound {
        /// The repository.
        id: String,
        /// The revision that was asked for.
        revision: String,
        /// The repository's page.
        address: String,
    },
    /// The hub wants to know who asks, or has not let him in.
    #[error("the hub does not give `{id}` to {who} (status {status}): it is gated, private or misspelt")]
    #[diagnostic(
        code(hub::refused),
        help(
            "accept its conditions at {address}, then run `hf auth login` or set HF_TOKEN to a token that may read it"
        )
    )]
    Refused {
        /// The repository.
        id: String,
        /// 401 or 403.
        status: u16,
        /// Whom the hub sees.
        who: &'static str,
        /// The repository's page.
        address: String,
    },
    /// The hub answered otherwise than it should, or the connection broke.
    #[error("could not download {what} of `{id}`: {reason}")]
    #[diagnostic(code(hub::download), help("run the same command again to resume the download"))]
    Download {
        /// The repository.
        id: String,
        /// The file.
        what: String,
        /// What was found.
        reason: String,
    },
    /// The repository is no model that can be loaded.
    #[error("`{id}` is not a diffusers model: it has neither unet/config.json nor config.json")]
    #[diagnostic(
        code(hub::no_model),
        help(
            "single files and other formats must be converted to a folder first; look for a `diffusers` version of it"
        )
    )]
    NoModel {
        /// The repository.
        id: String,
    },
    /// What was downloaded is no model that can be used, or lacks the variant.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The hub's cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(hub::file), help("the hub's cache must be writable, and its disk must not be full"))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Asked to stop; what was downloaded is kept.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}
