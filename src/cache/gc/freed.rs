//! What the removal of artefacts frees. They share files by hard links, so a file is free when its last link is.

use std::collections::BTreeMap;

use super::super::{CacheError, Store};
use crate::base::Digest;

/// The links that are left of each file, by device and inode.
#[derive(Default)]
pub(super) struct Freed {
    left: BTreeMap<(u64, u64), u64>,
}

impl Freed {
    /// What is freed if this artefact goes too.
    pub(super) fn with(&mut self, store: &Store, digest: &Digest) -> Result<u64, CacheError> {
        let mut bytes = 0;
        for (id, links) in store.links(digest)? {
            let left = self.left.entry(id).or_insert(links.all);
            *left = left.saturating_sub(links.here);
            if *left == 0 {
                bytes += links.bytes;
            }
        }
        Ok(bytes)
    }
}
