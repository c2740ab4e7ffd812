//! When a checkpoint is written and a note is due. Neither changes a result.

use std::time::{Duration, Instant};

/// The least time between two notes about the loss.
const NOTE_EVERY: Duration = Duration::from_millis(500);

/// When a checkpoint is written, besides at the end and on a request to stop.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// After so many steps.
    pub steps: Option<u64>,
    /// After so many seconds, but never so often that writing takes more than a twentieth of the time: the
    /// checkpoint of an SDXL student has 20 GB.
    pub seconds: f64,
}

impl Default for Cadence {
    /// Every ten seconds: the most that a crash can cost while checkpoints are small.
    fn default() -> Self {
        Self { steps: None, seconds: 10.0 }
    }
}

/// The last checkpoint.
pub(super) struct Saved {
    pub(super) step: u64,
    at: Instant,
    took: Duration,
}

impl Saved {
    /// A checkpoint of this step, whose writing began at this time.
    pub(super) fn new(step: u64, begun: Instant) -> Self {
        Self { step, at: Instant::now(), took: begun.elapsed() }
    }
}

impl Cadence {
    /// Whether the next checkpoint is due before this step.
    pub(super) fn is_due(&self, step: u64, saved: &Saved) -> bool {
        let by_steps = self.steps.is_some_and(|steps| step - saved.step >= steps);
        step > saved.step
            && (by_steps
                || saved.at.elapsed().as_secs_f64() >= self.seconds.max(20.0 * saved.took.as_secs_f64()))
    }
}

/// Steps per second since the last note.
pub(super) struct Pace {
    step: u64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(step: u64) -> Self {
        Self { step, at: Instant::now() }
    }

    /// The rate, if a note is due.
    pub(super) fn rate(&mut self, step: u64) -> Option<f64> {
        let elapsed = self.at.elapsed();
        if elapsed < NOTE_EVERY {
            return None;
        }
        let rate = (step - self.step) as f64 / elapsed.as_secs_f64();
        *self = Self::new(step);
        Some(rate)
    }
}
