//! How long processes wait for each other.

use std::time::Duration;

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
