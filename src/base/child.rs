//! The end of processes that this one started.

use std::io;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// Short compared with the time that a process is given.
const PAUSE: Duration = Duration::from_millis(5);

/// How a process ended by itself, for which it has time `until` then; `None` if it had to be killed.
pub fn end(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if Instant::now() < until => thread::sleep(PAUSE),
            _ => break,
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn one_that_hangs_is_killed_and_one_that_ends_says_how() {
        let start = |program: &str, of: &str| Command::new(program).arg(of).spawn().expect("it starts");
        let until = |milliseconds| Instant::now() + Duration::from_millis(milliseconds);
        assert!(matches!(end(&mut start("sleep", "60"), until(50)), Ok(None)));
        assert!(matches!(end(&mut start("sleep", "0"), until(60_000)), Ok(Some(status)) if status.success()));
    }
}
