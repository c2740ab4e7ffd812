//! How often and how long a remote is asked again. After that, a run goes on without it.

use std::thread;
use std::time::{Duration, Instant};

use super::contract::Trouble;
use crate::base::Interrupt;

/// The waits between attempts. Servers that throttle ask for seconds, and nobody wants to wait longer for a result that can
/// also be computed.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// How often a wait looks whether it was asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Attempts it again while that may help.
pub(in crate::cache) fn patiently<T>(
    stop: &Interrupt,
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    for pause in PAUSES {
        match attempt() {
            Err(Trouble::Passing(_)) => wait(pause, stop)?,
            ended => return ended,
        }
    }
    attempt()
}

fn wait(pause: Duration, stop: &Interrupt) -> Result<(), Trouble> {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        Trouble::check(stop)?;
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_attempted_again_and_a_stop_ends_the_wait() {
        let attempts = |trouble: fn() -> Trouble, stop: &Interrupt| {
            let mut count = 0;
            let ended: Result<(), Trouble> = patiently(stop, || {
                count += 1;
                if count < 2 { Err(trouble()) } else { Ok(()) }
            });
            (count, ended.is_ok())
        };
        let stop = Interrupt::default();
        assert_eq!(attempts(|| Trouble::Passing("answered 503".into()), &stop), (2, true));
        assert_eq!(attempts(|| Trouble::Lasting("answered 403".into()), &stop), (1, false));
        assert_eq!(attempts(|| Trouble::Absent, &stop), (1, false));
        stop.ask();
        assert_eq!(attempts(|| Trouble::Passing("answered 503".into()), &stop), (1, false));
    }
}
