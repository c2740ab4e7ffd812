//! The heartbeat of the leases that this process holds: each file is written again every few seconds, with a higher count.
//! Whoever waits on another machine looks for a change, and compares no clocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// A sixth of the time after which a silent holder counts as dead.
const EVERY: Duration = Duration::from_secs(5);

/// The file of a lease, which is written again in place.
#[derive(Debug)]
pub(super) struct Pulse {
    file: File,
    /// What is written before the count.
    text: String,
    beats: Mutex<u64>,
}

impl Pulse {
    /// The contents after so many beats. Their length is always the same, so that no write needs space.
    pub(super) fn contents(text: &str, beats: u64) -> String {
        format!("{text}\n{beats:020}\n")
    }

    pub(super) fn new(file: File, text: String) -> Self {
        Self { file, text, beats: Mutex::default() }
    }

    fn beat(&self) -> io::Result<()> {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        *beats += 1;
        self.file.write_all_at(Self::contents(&self.text, *beats).as_bytes(), 0)?;
        // A network file system sends what was written when a descriptor is closed (nfs(5), close-to-open consistency), else
        // after half a minute. On a local disk that costs nothing, which a sync would.
        self.file.try_clone().map(drop)
    }
}

/// Keeps the lease of `pulse` alive as long as somebody else has it.
pub(super) fn keep(pulse: &Arc<Pulse>) {
    static HELD: OnceLock<Mutex<Vec<Weak<Pulse>>>> = OnceLock::new();
    let held = HELD.get_or_init(|| {
        // Without the thread, others on this machine still see that the process lives.
        let _ = thread::Builder::new().name("heartbeat".to_owned()).spawn(|| {
            loop {
                thread::sleep(EVERY);
                let Some(held) = HELD.get() else { continue };
                let pulses: Vec<_> = {
                    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    held.retain(|pulse| pulse.strong_count() > 0);
                    held.iter().filter_map(Weak::upgrade).collect()
                };
                // A beat that fails is one that others miss.
                pulses.iter().for_each(|pulse| drop(pulse.beat()));
            }
        });
        Mutex::default()
    });
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|pulse| pulse.strong_count() > 0);
    held.push(Arc::downgrade(pulse));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_changes_the_file_and_not_its_length() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("lease");
        let first = Pulse::contents("holder", 0);
        std::fs::write(&path, &first)?;
        let pulse = Pulse::new(File::options().write(true).open(&path)?, "holder".to_owned());
        pulse.beat()?;
        let second = std::fs::read_to_string(&path)?;
        assert_eq!(second.lines().next(), Some("holder"));
        assert!(second != first && second.len() == first.len(), "{first} {second}");
        Ok(())
    }
}
