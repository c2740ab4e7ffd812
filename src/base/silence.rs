//! For how long a lease was seen without a heartbeat. Time counts only while the file system answers: if it was away, its other
//! users could not show a heartbeat either.

use std::time::{Duration, Instant};

use super::lease::Found;

/// The most that counts between two looks, which follow each other within a fraction of it.
const MOST: Duration = Duration::from_secs(1);

/// What a lock's file has said since a first look.
pub(super) struct Silence {
    found: Found,
    silent: Duration,
    looked: Instant,
}

impl Silence {
    pub(super) fn new(found: Found) -> Self {
        Self { found, silent: Duration::ZERO, looked: Instant::now() }
    }

    /// What was seen last.
    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// For how long it has been the same, with this look.
    pub(super) fn look(&mut self, found: &Found, now: Instant) -> Duration {
        if self.found == *found {
            self.silent += now.saturating_duration_since(self.looked).min(MOST);
        } else {
            (self.found, self.silent) = (found.clone(), Duration::ZERO);
        }
        self.looked = now;
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_system_that_was_away_makes_nobody_dead() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("lease");
        fs::write(&path, "one")?;
        let read = || Found::read(&path).map(|found| found.expect("it is there"));
        let (mut silence, begun) = (Silence::new(read()?), Instant::now());
        let after = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        silence.look(&read()?, begun);
        assert!(silence.look(&read()?, after(0.5)) <= Duration::from_millis(600));
        let away = silence.look(&read()?, after(100.0));
        assert!(away <= Duration::from_millis(1600), "{away:?}");
        let more = silence.look(&read()?, after(100.5)) - away;
        assert_eq!(more, Duration::from_millis(500));
        fs::write(&path, "two")?;
        assert_eq!(silence.look(&read()?, after(101.0)), Duration::ZERO);
        Ok(())
    }
}
