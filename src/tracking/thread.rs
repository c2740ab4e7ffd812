//! The thread that looks at a run from time to time and tells an MLflow server what is new.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::teller::{Source, Teller};
use crate::base::Server;
use crate::run::{Event, Sink};

/// How often the run is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to reach a server that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the end of a run waits until everything is sent. A server that cannot be reached is not waited for; a busy one can take
/// seconds for each request.
const LAST: Duration = Duration::from_secs(30);

/// What follows from trouble.
const LATER: &str = "the run goes on, and what the server misses is sent when it is back, or when the same command runs again";

/// Tells an MLflow server of a run. Everything that it says is read from the run folder and the cache.
pub struct Tracker {
    stop: Sender<()>,
    /// A last trouble, and the end of the thread.
    ended: Receiver<String>,
    server: Server,
}

struct Thread {
    teller: Teller,
    server: Server,
    sink: Arc<dyn Sink>,
    ended: Sender<String>,
    /// Whether it was told that the server is away, and that it takes no files: each is told once.
    told: (bool, bool),
}

impl Tracker {
    /// Begins to follow a run that is about to begin. `sink` is told if the server is away.
    pub fn begin(server: &Server, source: Source, sink: Arc<dyn Sink>) -> Self {
        let ((stop, stopped), (last, ended)) = (channel(), channel());
        let teller = Teller::new(server.clone(), source);
        let thread = Thread { teller, server: server.clone(), sink, ended: last, told: (false, false) };
        thread::spawn(move || thread.run(&stopped));
        Self { stop, ended, server: server.clone() }
    }

    /// The run is over. Waits until everything is sent, but not for long; returns what went wrong, if it was not told yet.
    pub fn end(self) -> Vec<String> {
        let _ = self.stop.send(());
        let begun = std::time::Instant::now();
        let mut troubles = Vec::new();
        loop {
            match self.ended.recv_timeout(LAST.saturating_sub(begun.elapsed())) {
                Ok(trouble) => troubles.push(trouble),
                Err(RecvTimeoutError::Disconnected) => return troubles,
                Err(RecvTimeoutError::Timeout) => {
                    let text = "it has not taken everything in time; what it misses is sent when the same command runs again";
                    troubles.push(format!("MLflow at {}: {text}", self.server));
                    return troubles;
                }
            }
        }
    }
}

impl Thread {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut pause = EVERY;
        loop {
            let last = !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
            let told = self.teller.look(last);
            pause = if told.is_ok() { EVERY } else { (2 * pause).min(LONGEST_PAUSE) };
            if let Err(trouble) = told
                && !std::mem::replace(&mut self.told.0, true)
            {
                self.note(&format!("{trouble}; {LATER}"));
            }
            if let Some(reason) = self.teller.no_files.take()
                && !std::mem::replace(&mut self.told.1, true)
            {
                self.note(&format!("{reason}; its pages show no pictures and files, the report does"));
            }
            if last {
                return;
            }
        }
    }

    /// Nothing follows the last event of a run.
    fn note(&self, text: &str) {
        let text = format!("MLflow at {}: {text}", self.server);
        if self.teller.is_over() {
            let _ = self.ended.send(text);
        } else {
            self.sink.event(&Event::RunNote { text });
        }
    }
}
