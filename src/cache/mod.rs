//! Artefacts by key, with their manifests, damage and locks. Independent of stages.
//!
//! ```text
//! <root>/version               the format, checked before anything is read or written
//! <root>/v1/entries/KEY.json   the result of a key: manifest, artefact digest, every file's digest, timings
//! <root>/v1/artefacts/DIGEST/  the files, by digest: two keys with equal bytes share a folder
//! <root>/v1/work/KEY/          output/ and checkpoint/ of an unfinished attempt
//! <root>/v1/leases/            one lease per key in work, and one per artefact while it is put in place
//! <root>/v1/users/             one file per living process, with the keys that it uses
//! <root>/v1/roots/             run folders and pins, with the keys that they need
//! <root>/v1/memo/              digests of files by size, times and inode, so that they are hashed once
//! <root>/v1/last/              the manifest that each stage of each pipeline had last, and the files of the folders that
//!                              it read, for explanations
//! ```
//!
//! An entry is written last, when its artefact is complete and on disk: a crash at any moment leaves either no entry
//! or a valid one. Files of artefacts are read-only. They share an inode only with files of other artefacts, never with
//! a file that a user brought. `remote` says how a cache shares artefacts with those of other machines.

mod alike;
mod begin;
mod borrow;
mod contents;
mod entry;
mod error;
mod exchange;
mod gc;
mod last;
mod leftovers;
mod memo;
mod obtain;
mod pending;
mod recorded;
mod remote;
mod repair;
mod roots;
mod store;
mod tree;
mod unfinished;
mod user;
mod users;
mod verify;

pub use borrow::Scratch;
pub use contents::{Contents, Kept, Loose, Work};
pub use entry::{Damage, Entry, Made};
pub use error::CacheError;
pub use exchange::{Pulled, Pushed};
pub use gc::{Candidate, Collected, Collection, Limits, Needed, Reason, Thing};
pub use memo::Recheck;
pub use obtain::{Maker, Notice, Obtained, Request};
pub use pending::PendingArtefact;
pub use recorded::Place;
pub use remote::{Address, RemoteError, Shared};
pub use roots::{Root, RootKind};
pub use store::{Lookup, Store};
pub use tree::{FileChange, How, Tree, TreeFile};
pub use verify::{Unreadable, Verification};

#[cfg(test)]
mod tests;
