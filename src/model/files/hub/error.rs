//! Errors of resolving and downloading repositories, each with advice.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::base::Interrupted;
use crate::model::error::ModelError;

/// A repository that cannot be resolved or downloaded.
#[derive(Debug, Error, Diagnostic)]
pub enum HubError {
    /// The program was built without a client for the hub.
    #[error("there is no folder `{id}`, and this build of laptop-diff cannot load models from the hub")]
    #[diagnostic(
        code(hub::not_built),
        help(
            "a relative path starts at the folder of the pipeline file; to load models of the hub by name, \
             build with the default features, `cargo build --release`"
        )
    )]
    NotBuilt {
        /// The name.
        id: String,
    },
    /// The hub cannot be reached, and its cache lacks a needed file.
    #[error("the hub cannot be reached ({reason}), and its cache lacks {what} of `{id}` at `{revision}`")]
    #[diagnostic(
        code(hub::offline),
        help(
            "on a machine with network access, run `hf download {id} --revision {revision}` and copy the folder \
             {} to this machine; or give the path of a model folder instead of a name", cache.display()
        )
    )]
    Offline {
        /// The repository.
        id: String,
        /// The requested revision.
        revision: String,
        /// What is missing.
        what: String,
        /// Why the hub was not asked.
        reason: String,
        /// The hub's cache folder.
        cache: PathBuf,
    },
    /// The hub has no such repository or revision.
    #[error("the hub has no `{id}` at revision `{revision}`, and there is no such folder")]
    #[diagnostic(
        code(hub::not_found),
        help(
            "check its name and its branches at {address}; a relative path starts at the folder of the \
             pipeline file"
        )
    )]
    NotFound {
        /// The repository.
        id: String,
        /// The requested revision.
        revision: String,
        /// The repository's page.
        address: String,
    },
    /// The hub requires authentication, or denied access.
    #[error("the hub denied {who} access to `{id}` (status {status}): it is gated, private or misspelt")]
    #[diagnostic(
        code(hub::refused),
        help(
            "accept its conditions at {address}, then run `hf auth login` or set HF_TOKEN to a token with access to it"
        )
    )]
    Refused {
        /// The repository.
        id: String,
        /// 401 or 403.
        status: u16,
        /// The identity that the hub sees.
        who: &'static str,
        /// The repository's page.
        address: String,
    },
    /// The hub gave an unexpected answer, or the connection broke.
    #[error("could not download {what} of `{id}`: {reason}")]
    #[diagnostic(code(hub::download), help("run the same command again to resume the download"))]
    Download {
        /// The repository.
        id: String,
        /// The file.
        what: String,
        /// What happened.
        reason: String,
    },
    /// The repository is not a model that can be loaded.
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
    /// The repository of a scorer has no weights that can be read.
    #[error("`{id}` has no weights in safetensors format{}", with.as_ref().map_or_else(String::new, |name| format!(", only {name}")))]
    #[diagnostic(
        code(hub::no_weights),
        help(
            "download it with `hf download {id} --local-dir downloads`, convert the checkpoint with \
             `python examples/convert-weights.py downloads/CHECKPOINT FOLDER`, and give the folder instead of the name"
        )
    )]
    NoWeights {
        /// The repository.
        id: String,
        /// A checkpoint that it has instead.
        with: Option<String>,
    },
    /// The downloaded files are not a usable model, or lack the variant.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    /// The hub's cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    #[diagnostic(code(hub::file), help("the hub's cache must be writable, and its disk must not be full"))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// The user interrupted the run; downloaded files are kept.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}
