//! A wish to stop, asked for by a signal and honoured at the next safe point.

use std::sync::atomic::{AtomicBool, Ordering};

/// Set once by the signal handler; long stages look at it between pieces of work.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicBool);

/// The work stopped because it was asked to, after writing its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; the same command goes on from here")]
pub struct Interrupted;

impl Interrupt {
    /// Asks for a stop.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once a stop was asked for. Call it after writing a checkpoint.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.asked() { Err(Interrupted) } else { Ok(()) }
    }
}
