//! A request to stop, made by a signal and honoured at the next safe point.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once by the signal handler; long stages check it between pieces of work.
#[derive(Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// The work stopped on request, after it wrote its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; run the same command again to resume")]
pub struct Interrupted;

impl Interrupt {
    /// Requests a stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag that a signal handler sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Whether a stop was requested.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if a stop was requested. Call it after writing a checkpoint.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.asked() { Err(Interrupted) } else { Ok(()) }
    }
}
