//! Locks whose holders on other systems have died. Whoever waits for such a lock takes it after a while; whoever only wants to know
//! who lives watches all of them at once.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Interrupt;
use super::holder::Life;
use super::lease::{Found, grave};
use super::lock::{FileLock, PATIENCE, PAUSE, bury};
use super::silence::Silence;

/// How long after the beginning of a wait somebody is told of it: a living holder has shown a heartbeat by then.
const BEFORE_TELLING: Duration = Duration::from_secs(6);

/// Removes those of these locks whose holders on other systems show no heartbeat for 30 seconds. Ends as soon as each of the
/// others has shown one. `waiting` is called with the name of a holder if that takes longer than a living one needs. A lock
/// that cannot be removed stays.
pub fn remove_silent(
    paths: &[PathBuf],
    interrupt: &Interrupt,
    waiting: &mut dyn FnMut(&str),
) -> io::Result<()> {
    remove_silent_with(paths, interrupt, waiting, PATIENCE)
}

fn remove_silent_with(
    paths: &[PathBuf],
    interrupt: &Interrupt,
    waiting: &mut dyn FnMut(&str),
    patience: Duration,
) -> io::Result<()> {
    let mut watched = Vec::new();
    for path in paths {
        let elsewhere = Found::read(path)?.filter(|found| found.life() == Life::Elsewhere);
        watched.extend(elsewhere.map(|found| (path, Silence::new(found))));
    }
    let (begun, mut told) = (Instant::now(), false);
    while !watched.is_empty() {
        let mut left = Vec::new();
        for (path, mut silence) in watched {
            match Found::read(path)? {
                Some(found) if found == *silence.found() => {
                    if silence.look(&found, Instant::now()) < patience {
                        left.push((path, silence));
                    } else if let Ok(Some(digger)) = FileLock::attempt(&grave(path, &found)) {
                        let _ = bury(path, &found, digger);
                    }
                }
                _ => {}
            }
        }
        watched = left;
        let Some((_, first)) = watched.first() else { break };
        if !told && begun.elapsed() >= BEFORE_TELLING.min(patience) {
            waiting(&first.found().name());
            told = true;
        }
        if interrupt.asked() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::heartbeat::Pulse;
    use super::super::lease::Lease;
    use super::*;

    #[test]
    fn silent_holders_elsewhere_are_removed_and_living_ones_are_not() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let [silent, living, here, unread] =
            ["silent", "living", "here", "unread"].map(|name| folder.path().join(name));
        for path in [&silent, &living] {
            let mut lease = serde_json::to_value(Lease::new())?;
            lease["holder"]["system"] = "another".into();
            fs::write(path, Pulse::contents(&lease.to_string(), 0))?;
        }
        fs::write(&unread, "half a li")?;
        let ours = FileLock::attempt(&here)?.expect("nobody has it");
        let text = fs::read_to_string(&living)?.lines().next().map(str::to_owned).expect("a line");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for beats in 1.. {
                    fs::write(&living, Pulse::contents(&text, beats)).expect("writable");
                    std::thread::sleep(Duration::from_millis(20));
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
            let (begun, mut told) = (Instant::now(), Vec::new());
            let paths = [&silent, &living, &here, &unread, &folder.path().join("none")].map(PathBuf::clone);
            let mut waiting = |name: &str| told.push(name.to_owned());
            let patience = Duration::from_secs(1);
            let removed = remove_silent_with(&paths, &Interrupt::default(), &mut waiting, patience);
            over.store(true, Ordering::SeqCst);
            assert!(begun.elapsed() >= patience, "{:?}", begun.elapsed());
            removed
        })?;
        assert!(!silent.exists() && !unread.exists() && living.exists() && ours.is_ours());
        assert!(FileLock::is_held(&living)? && FileLock::attempt(&silent)?.is_some());
        let interrupt = Interrupt::default();
        interrupt.ask();
        let stopped = remove_silent(&[living], &interrupt, &mut |_| {});
        assert_eq!(stopped.expect_err("it waits").kind(), io::ErrorKind::Interrupted);
        Ok(())
    }
}
