//! Hears how far a file has been hashed, and may stop it: a large model takes a minute.

use std::io;
use std::path::Path;

/// Receives the progress of hashing.
pub trait Watch: Send + Sync {
    /// `done` of `total` bytes of a file are hashed. An error stops the work; [`io::ErrorKind::Interrupted`] says that a
    /// stop was requested.
    fn hashed(&self, path: &Path, done: u64, total: u64) -> io::Result<()>;
}

/// Lets everything pass.
pub struct Unwatched;

impl Watch for Unwatched {
    fn hashed(&self, _: &Path, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}
