//! Tells how far the files that a command reads are hashed, and stops on request. Files that take less than a moment are
//! not mentioned.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Event, Sink};
use crate::base::{Interrupt, Watch};

/// Time until a file is first mentioned, and between two events about it.
const EVERY: Duration = Duration::from_millis(500);

/// Watches the hashing of a [`Store`](crate::cache::Store).
pub struct Hashing {
    sink: Arc<dyn Sink>,
    interrupt: Arc<Interrupt>,
    current: Mutex<Option<Current>>,
}

/// The file that is being hashed.
struct Current {
    path: PathBuf,
    /// When it was begun, or last mentioned.
    since: Instant,
    mentioned: bool,
}

impl Hashing {
    /// Tells `sink`, and stops at the request of `interrupt`.
    pub fn new(sink: Arc<dyn Sink>, interrupt: Arc<Interrupt>) -> Self {
        Self { sink, interrupt, current: Mutex::default() }
    }

    /// Whether to mention that `path` has come this far.
    fn is_due(&self, path: &Path, is_done: bool, now: Instant) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match current.as_mut() {
            Some(file) if file.path == path => file,
            _ => current.insert(Current { path: path.to_owned(), since: now, mentioned: false }),
        };
        let is_due = file.mentioned && is_done || now.duration_since(file.since) >= EVERY;
        if is_due {
            (file.since, file.mentioned) = (now, true);
        }
        if is_done {
            *current = None;
        }
        is_due
    }
}

impl Watch for Hashing {
    fn hashed(&self, path: &Path, done: u64, total: u64) -> io::Result<()> {
        // The system's `interrupted` means a system call to repeat; this one comes from here, where nothing repeats.
        self.interrupt.check().map_err(|error| io::Error::new(io::ErrorKind::Interrupted, error))?;
        if self.is_due(path, done >= total, Instant::now()) {
            self.sink.event(&Event::Hashing { path: path.to_owned(), done, total: total.max(done) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(Mutex<Vec<Event>>);

    impl Sink for Told {
        fn event(&self, event: &Event) {
            self.0.lock().expect("no test panics while it holds this").push(event.clone());
        }
    }

    #[test]
    fn a_file_that_takes_long_is_mentioned_until_its_end() {
        let sink = Arc::new(Told(Mutex::default()));
        let hashing = Hashing::new(sink, Arc::default());
        let start = Instant::now();
        let due = |path: &str, is_done, milliseconds| {
            hashing.is_due(Path::new(path), is_done, start + Duration::from_millis(milliseconds))
        };
        assert!(!due("small", false, 0) && !due("small", true, 400));
        assert!(!due("large", false, 400) && !due("large", false, 800));
        assert!(due("large", false, 900) && !due("large", false, 1000));
        assert!(due("large", false, 1400) && due("large", true, 1401));
        assert!(!due("large", false, 1402), "it is another reading of the file");
    }

    #[test]
    fn a_request_stops_the_hashing() {
        let interrupt = Arc::new(Interrupt::default());
        let hashing = Hashing::new(Arc::new(Told(Mutex::default())), Arc::clone(&interrupt));
        assert!(hashing.hashed(Path::new("model"), 1, 2).is_ok());
        interrupt.ask();
        let error = hashing.hashed(Path::new("model"), 2, 2).expect_err("it was asked to stop");
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
