//! What a remote can do, and why it may not.

use std::io::{self, Write};
use std::path::Path;

use crate::base::{Interrupt, Interrupted};

/// A place for objects by name. Names have `/` between their parts.
pub(in crate::cache) trait Remote: Send + Sync {
    /// Writes the bytes of an object into `into`.
    fn get(&self, name: &str, into: &mut dyn Write, stop: &Interrupt) -> Result<(), Trouble>;

    /// Puts an object in place, in that of an older one if there is one: whole, or not at all.
    fn put(&self, name: &str, source: Source<'_>, stop: &Interrupt) -> Result<(), Trouble>;

    /// The names of the objects in a folder, without the folder.
    fn list(&self, folder: &str, stop: &Interrupt) -> Result<Vec<String>, Trouble>;

    /// The size of an object; `None` if it does not exist.
    fn exists(&self, name: &str, stop: &Interrupt) -> Result<Option<u64>, Trouble>;
}

/// The bytes of an object that is put.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) enum Source<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// Why a remote did not do what it was asked to do. The texts are this program's own: what a server or its client says can
/// hold addresses with signatures in them.
#[derive(Debug)]
pub(in crate::cache) enum Trouble {
    /// There is no such object.
    Absent,
    /// Another attempt may succeed. The text goes on after the address: `answered 503 SlowDown`.
    Passing(String),
    /// Another attempt would end the same way.
    Lasting(String),
    /// It is no trouble of the remote, but of this machine's disk, or a request to stop.
    Here(io::Error),
}

impl Trouble {
    /// An error here if a stop was requested.
    pub(in crate::cache) fn check(stop: &Interrupt) -> Result<(), Self> {
        stop.check().map_err(|Interrupted| Self::Here(io::ErrorKind::Interrupted.into()))
    }

    /// Whether a stop was requested.
    pub(in crate::cache) fn is_interruption(&self) -> bool {
        matches!(self, Self::Here(error) if error.kind() == io::ErrorKind::Interrupted)
    }

    /// What to say after the address of the remote.
    pub(in crate::cache) fn text(&self) -> String {
        match self {
            Self::Absent => "does not have it".to_owned(),
            Self::Passing(text) | Self::Lasting(text) => text.clone(),
            Self::Here(error) => format!("could not be used, because of this machine: {error}"),
        }
    }
}
