//! Processes connected by TCP, each with each: a sum at an owner takes one way, and the work is spread over all.

use std::sync::{Mutex, PoisonError};

use super::link::Link;
use super::{Collective, CollectiveError};

/// The ranks of one start.
pub struct TcpGroup {
    rank: usize,
    /// By rank; `None` for this one.
    links: Vec<Option<Link>>,
    /// Why the ranks are no longer in step.
    broken: Mutex<Option<String>>,
}

impl TcpGroup {
    pub(super) fn new(rank: usize, links: Vec<Option<Link>>) -> Self {
        Self { rank, links, broken: Mutex::default() }
    }

    /// The link to a rank, unless an exchange failed before: what came now would belong to that one.
    fn link(&self, rank: usize) -> Result<&Link, CollectiveError> {
        if let Some(reason) = self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(CollectiveError::Broken { reason });
        }
        Ok(self.links[rank].as_ref().unwrap_or_else(|| panic!("BUG: rank {rank} talks to itself")))
    }
}

impl Collective for TcpGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.links.len()
    }

    fn send(&self, bytes: &[u8], to: usize) -> Result<(), CollectiveError> {
        self.link(to)?.send(bytes)
    }

    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<(), CollectiveError> {
        self.link(from)?.receive(bytes)
    }

    fn lost(&self) -> Result<(), CollectiveError> {
        self.links.iter().flatten().try_for_each(Link::lost)
    }

    fn fail(&self, reason: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_none() {
            self.links.iter().flatten().for_each(|link| link.fail(reason));
            *broken = Some(reason.to_owned());
        }
    }
}
