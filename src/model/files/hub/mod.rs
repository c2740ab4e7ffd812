//! Models named by their repository on the Hugging Face hub. A name is pinned to a commit when a pipeline is planned,
//! so that a branch that has moved changes the key. Files are downloaded when the stage runs, into the cache that
//! Python's `huggingface_hub` also uses.
//!
//! `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` (else the token of `hf auth login`) and `HF_HUB_OFFLINE` have the same meaning
//! as there. Pinning and downloading need the cargo feature `hub`; without it both return an error that says so.

mod access;
#[cfg(not(feature = "hub"))]
#[path = "absent.rs"]
mod client;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod environment;
mod error;
mod pinned;
#[cfg(feature = "hub")]
mod transfer;

pub use access::Access;
#[cfg(not(feature = "hub"))]
pub use client::access;
pub use client::{download, download_scorer, pin};
#[cfg(feature = "hub")]
pub use environment::access;
pub use error::HubError;
pub use pinned::{Pinned, is_id, is_revision};
