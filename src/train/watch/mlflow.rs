//! The curves of a training in an MLflow server. A thread of its own sends them, so that a slow server delays nothing,
//! and one that is away is tried again from time to time.
//!
//! Which run of the server it is, and how far it got, is kept beside the checkpoint (`mlflow_run.rs`): a resumed training
//! goes on in the same run and sends no step twice.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, METRICS, Metric, milliseconds};
use super::mlflow_picture::Picture;
use super::mlflow_run::Run;
use super::{Drawn, End, Server, Watcher};
use crate::base::Progress;

/// How long numbers are collected before they are sent.
const COLLECT: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to reach a server that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the end of a training waits for the last numbers to be sent. A server that cannot be reached is not waited for; a
/// busy one can take seconds for each request.
const LAST: Duration = Duration::from_secs(30);

/// What it means if they are not.
const LOST: &str = "the last numbers or pictures are not there";

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
    troubles: std::sync::Mutex<Receiver<Trouble>>,
}

enum Trouble {
    /// Nothing can be sent now.
    Away(String),
    /// Pictures cannot be sent at all.
    Pictures(String),
}

enum Message {
    Numbers(Vec<Metric>),
    Picture(Picture),
    End(End),
}

impl<'a> MlFlow<'a> {
    /// Starts the thread.
    pub fn new(server: &Server, told: Told, progress: &'a dyn Progress) -> Self {
        let ((messages, received), (trouble, troubles)) = (channel(), channel());
        let client = Client::new(server.clone());
        thread::spawn(move || {
            let run = Run::read(&told.file, client.address());
            // What was being sent when the earlier attempt was killed.
            let (waiting, pictures) = (run.pending().into(), VecDeque::new());
            let (troubled, without_pictures) = (false, false);
            Sending { client, told, run, waiting, pictures, trouble, troubled, without_pictures }
                .all(&received);
        });
        Self { progress, server: server.clone(), messages, troubles: std::sync::Mutex::new(troubles) }
    }

    fn note(&self, trouble: &Trouble, then: &str) {
        let text = match trouble {
            Trouble::Away(trouble) => format!("{trouble}; {then}"),
            Trouble::Pictures(trouble) => format!("{trouble}; its pages show no pictures, the report does"),
        };
        self.progress.note(&format!("MLflow at {}: {text}", self.server));
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

    fn picture(&self, picture: &Drawn<'_>) {
        self.earlier_picture(picture.step, picture.name, picture.path);
    }

    fn earlier_picture(&self, step: u64, name: &str, path: &Path) {
        let picture = Picture { name: name.to_owned(), step, path: path.to_owned() };
        let _ = self.messages.send(Message::Picture(picture));
    }

    fn end(&self, end: End) {
        let _ = self.messages.send(Message::End(end));
        let troubles = self.troubles.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let until = Instant::now() + LAST;
        loop {
            match troubles.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(trouble) => self.note(&trouble, LOST),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    return self.note(&Trouble::Away("it does not answer in time".to_owned()), LOST);
                }
            }
        }
    }
}

/// The thread.
struct Sending {
    client: Client,
    told: Told,
    run: Run,
    waiting: VecDeque<Metric>,
    pictures: VecDeque<Picture>,
    trouble: Sender<Trouble>,
    /// Whether it was told that the server is away: it is told once.
    troubled: bool,
    /// Whether it was told that pictures cannot be sent.
    without_pictures: bool,
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
                Ok(Message::Picture(picture)) => {
                    self.collect_picture(picture);
                    continue;
                }
                Ok(Message::End(end)) => Some(end),
                Err(RecvTimeoutError::Timeout) => None,
                // The training ended without a word, as in a panic.
                Err(RecvTimeoutError::Disconnected) => Some(End::Failed),
            };
            let sent = self.numbers(&mut begun).and_then(|()| {
                let pictures = self.send_pictures();
                let ended = end.map_or(Ok(()), |end| self.client.end(self.run.id(), end));
                pictures.and(ended)
            });
            pause = if sent.is_ok() { COLLECT } else { (2 * pause).min(LONGEST_PAUSE) };
            if let Err(trouble) = sent
                && !std::mem::replace(&mut self.troubled, true)
            {
                let _ = self.trouble.send(Trouble::Away(trouble));
            }
            if end.is_some() {
                return;
            }
            next = Instant::now() + pause;
        }
    }

    /// Steps that were sent before the training resumed are left out.
    fn collect(&mut self, metrics: Vec<Metric>) {
        let run = &self.run;
        self.waiting.extend(metrics.into_iter().filter(|one| !run.has(&one.key, one.step)));
        let more = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..more);
    }

    fn collect_picture(&mut self, picture: Picture) {
        if !self.run.has(&picture.name, picture.step) {
            self.pictures.push_back(picture);
        }
    }

    fn numbers(&mut self, begun: &mut bool) -> Result<(), String> {
        if !*begun {
            let Told { experiment, run, parameters, file } = &self.told;
            self.run.begin(&self.client, file, (experiment, run), parameters)?;
            *begun = true;
        }
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(METRICS);
            let batch: Vec<Metric> = self.waiting.iter().take(count).cloned().collect();
            // Written first: what is sent again after a crash has the same timestamps, and the server takes it once.
            self.run.sending(&batch, &self.told.file)?;
            self.client.log(self.run.id(), &batch)?;
            self.waiting.drain(..count);
        }
        self.run.sending(&[], &self.told.file)
    }

    fn send_pictures(&mut self) -> Result<(), String> {
        if let Some(reason) = self.run.no_pictures().filter(|_| !self.pictures.is_empty()) {
            self.pictures.clear();
            if !std::mem::replace(&mut self.without_pictures, true) {
                let _ = self.trouble.send(Trouble::Pictures(reason));
            }
        }
        while let Some(picture) = self.pictures.front() {
            self.run.picture(&self.client, picture)?;
            self.pictures.pop_front();
            self.run.write(&self.told.file)?;
        }
        Ok(())
    }
}
