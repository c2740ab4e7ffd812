//! Processes connected by TCP, each with each: a sum at an owner takes one way, and the work is spread over all.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::link::Link;
use super::{Collective, CollectiveError};

/// How long processes wait for each other.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Until all ranks are connected. A scheduler may start them at different times.
    pub gather: Duration,
    /// Between two signs of life.
    pub beat: Duration,
    /// Without a sign of life, until a rank counts as lost.
    pub silence: Duration,
}

impl Default for Timing {
    /// A switch that restarts is away for half a minute.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { gather: seconds(300), beat: seconds(5), silence: seconds(60) }
    }
}

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

    fn fail(&self, reason: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_none() {
            self.links.iter().flatten().for_each(|link| link.fail(reason));
            *broken = Some(reason.to_owned());
        }
    }
}
