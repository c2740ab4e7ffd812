//! A cache that several machines share: a folder, or a bucket of an object store.
//!
//! ```text
//! ADDRESS/v1/entries/KEY.json   the entry of a key, with the list of its hidden files; sealed, and written last
//! ADDRESS/v1/blobs/DIGEST       a file of artefacts, by the digest of its bytes
//! ```
//!
//! Every object is written whole or not at all, and a name of a blob says its bytes. So it does not matter who writes first,
//! and nothing depends on conditional writes: two machines that make the same key write equal blobs, and the entry of one of
//! them stays. Whoever reads an entry finds its blobs, or refuses it. Nothing that comes from a remote is used before its
//! bytes have the digests that its entry gives; that the entry gives the right ones is a matter of trust in those who may
//! write there.
//!
//! What a [`Remote`](contract::Remote) can do is little, and `kinds` is the table of those that there are. Everything else here
//! knows no kind.

mod address;
#[cfg(feature = "remote")]
mod bucket;
mod contract;
mod error;
mod fetch;
mod folder;
mod kinds;
mod patience;
mod record;
mod send;
mod several;
mod shared;
#[cfg(feature = "remote")]
mod told;

pub use address::Address;
#[cfg(test)]
pub(super) use contract::Source;
pub(super) use contract::{Remote, Trouble};
pub use error::RemoteError;
pub(super) use fetch::{Unfetched, fetch_files, fetch_record};
pub(super) use patience::patiently;
pub(super) use record::{Record, entries, key_of};
pub(super) use send::{Sent, send};
pub use shared::Shared;
pub(super) use shared::Way;
