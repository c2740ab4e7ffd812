//! What stands in the file of a lock: a lease, and under it the count of its heartbeats.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::holder::{Holder, Life};
use super::{Digest, clock};

/// The first line of a lock's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// Distinguishes it from every other lease.
    pub(super) id: String,
    pub(super) holder: Holder,
}

/// What stands in the file of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    text: String,
    /// `None` while it is being written, or if something else stands there.
    pub(super) lease: Option<Lease>,
}

impl Lease {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let holder = Holder::this().clone();
        let now = clock::nanoseconds(SystemTime::now());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = Digest::of(format!("{holder:?} {now} {count}").as_bytes()).short();
        Self { id, holder }
    }
}

impl Found {
    /// `None` if there is no file.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let lease = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
                Ok(Some(Self { text, lease }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn life(&self) -> Life {
        self.lease.as_ref().map_or(Life::Elsewhere, |lease| lease.holder.life())
    }

    pub(super) fn name(&self) -> String {
        self.lease.as_ref().map_or("another process".to_owned(), |lease| lease.holder.name())
    }
}

/// The lock of whoever removes this dead lease.
pub(super) fn grave(path: &Path, dead: &Found) -> PathBuf {
    let id = dead.lease.as_ref().map_or("unreadable", |lease| &lease.id);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{id}"))
}
