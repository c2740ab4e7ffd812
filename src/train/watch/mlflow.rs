//! The curves of a training in an MLflow server. A thread of its own sends them, so that a slow server delays nothing,
//! and one that is away is tried again from time to time.
//!
//! Which run of the server it is, and how far it got, is kept beside the checkpoint: a resumed training goes on in the
//! same run and sends no step twice.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::client::{Client, METRICS, Metric, milliseconds};
use super::{End, Server, Watcher};
use crate::base::{Progress, files};

/// How long numbers are collected before they are sent.
const COLLECT: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to reach a server that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the end of a training waits for the last numbers to be sent.
const LAST: Duration = Duration::from_secs(3);

/// What it means if they are not.
const LOST: &str = "the last numbers are not there";

/// The most numbers that wait for a server that is away: some ten megabytes.
const WAITING: usize = 100_000;

/// What the server is told of a training.
pub struct Told {
    /// The name of the experiment.
    pub experiment: String,
    /// The name of the run.
    pub run: String,
    /// What the training depends on.
    pub parameters: Vec<(String, String)>,
    /// The file that outlives a crash, with the id of the run.
    pub file: PathBuf,
}

/// Sends a training's numbers to a server.
pub struct MlFlow<'a> {
    progress: &'a dyn Progress,
    server: Server,
    messages: Sender<Message>,
    /// What went wrong, if anything did, and the end of the thread.
    troubles: std::sync::Mutex<Receiver<String>>,
}

enum Message {
    Numbers(Vec<Metric>),
    End(End),
}

impl<'a> MlFlow<'a> {
    /// Starts the thread.
    pub fn new(server: &Server, told: Told, progress: &'a dyn Progress) -> Self {
        let ((messages, received), (trouble, troubles)) = (channel(), channel());
        let client = Client::new(server.clone());
        thread::spawn(move || {
            let run = Run::read(&told.file, client.address());
            Sending { client, told, run, waiting: VecDeque::new(), trouble, troubled: false }.all(&received);
        });
        Self { progress, server: server.clone(), messages, troubles: std::sync::Mutex::new(troubles) }
    }

    fn note(&self, trouble: &str, then: &str) {
        self.progress.note(&format!("MLflow at {}: {trouble}; {then}", self.server));
    }
}

impl Watcher for MlFlow<'_> {
    /// What was sent before is known by its steps.
    fn begin(&self, _step: u64) {}

    /// Numbers that waited when the earlier attempt was killed are sent now.
    fn earlier(&self, step: u64, numbers: &dyn Fn() -> Vec<(String, f64)>) {
        self.numbers(step, &numbers());
    }

    fn numbers(&self, step: u64, numbers: &[(String, f64)]) {
        let timestamp = milliseconds();
        // JSON has no other numbers.
        let finite = numbers.iter().filter(|(_, value)| value.is_finite());
        let metrics = finite.map(|(key, value)| Metric { key: key.clone(), value: *value, step, timestamp });
        // Without a receiver, the thread has ended and said why.
        let _ = self.messages.send(Message::Numbers(metrics.collect()));
        let troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let then = "the training goes on, and the server is tried again";
        troubles.try_iter().for_each(|trouble| self.note(&trouble, then));
    }

    /// MLflow takes pictures only where its server passes files on, so they are left to the report and TensorBoard.
    fn picture(&self, _step: u64, _name: &str, _png: &[u8], _size: (u32, u32)) {}

    fn end(&self, end: End) {
        let _ = self.messages.send(Message::End(end));
        let troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let until = Instant::now() + LAST;
        loop {
            match troubles.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(trouble) => self.note(&trouble, LOST),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => return self.note("it does not answer in time", LOST),
            }
        }
    }
}

/// The run in the server, in the file beside the checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Run {
    server: String,
    id: Option<String>,
    /// The last step that was sent, by key.
    sent: BTreeMap<String, u64>,
}

impl Run {
    /// A file that cannot be read, or is of another server, is as if there were none.
    fn read(file: &std::path::Path, server: String) -> Self {
        let found: Option<Self> = files::read_json(file).ok();
        let new = || Self { server: server.clone(), ..Self::default() };
        found.filter(|run| run.server == server).unwrap_or_else(new)
    }
}

/// The thread.
struct Sending {
    client: Client,
    told: Told,
    run: Run,
    waiting: VecDeque<Metric>,
    trouble: Sender<String>,
    /// Whether a trouble was told: it is told once.
    troubled: bool,
}

impl Sending {
    fn all(mut self, received: &Receiver<Message>) {
        let (mut pause, mut begun) = (COLLECT, false);
        let mut next = Instant::now();
        loop {
            let end = match received.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Message::Numbers(metrics)) => {
                    self.collect(metrics);
                    continue;
                }
                Ok(Message::End(end)) => Some(end),
                Err(RecvTimeoutError::Timeout) => None,
                // The training ended without a word, as in a panic.
                Err(RecvTimeoutError::Disconnected) => Some(End::Failed),
            };
            let sent = self.send(&mut begun);
            let sent = match end {
                Some(end) => sent.and_then(|()| self.finish(end)),
                None => sent,
            };
            pause = if sent.is_ok() { COLLECT } else { (2 * pause).min(LONGEST_PAUSE) };
            if let Err(trouble) = sent
                && !std::mem::replace(&mut self.troubled, true)
            {
                let _ = self.trouble.send(trouble);
            }
            if end.is_some() {
                return;
            }
            next = Instant::now() + pause;
        }
    }

    /// Steps that were sent before the training resumed are left out.
    fn collect(&mut self, metrics: Vec<Metric>) {
        let sent = &self.run.sent;
        self.waiting
            .extend(metrics.into_iter().filter(|one| sent.get(&one.key).is_none_or(|sent| one.step > *sent)));
        let more = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..more);
    }

    fn send(&mut self, begun: &mut bool) -> Result<(), String> {
        if !*begun {
            let known = self.run.id.as_ref().is_some_and(|id| self.client.resume(id).is_ok());
            if !known {
                let Told { experiment, run, parameters, .. } = &self.told;
                let id = self.client.begin(experiment, run, parameters)?;
                self.run = Run { server: self.client.address(), id: Some(id), sent: BTreeMap::new() };
            }
            *begun = true;
        }
        let id = self.run.id.clone().unwrap_or_default();
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(METRICS);
            let batch: Vec<Metric> = self.waiting.iter().take(count).cloned().collect();
            self.client.log(&id, &batch)?;
            self.waiting.drain(..count);
            self.run.sent.extend(batch.into_iter().map(|one| (one.key, one.step)));
        }
        files::write_json(&self.told.file, &self.run)
            .map_err(|error| format!("{}: {error}", self.told.file.display()))
    }

    fn finish(&mut self, end: End) -> Result<(), String> {
        self.run.id.as_ref().map_or(Ok(()), |id| self.client.end(id, end))
    }
}
