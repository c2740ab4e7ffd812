//! The workers of a run: processes that run the same command with `--worker DEVICE`, each for one place. One is started when
//! its place is first needed, and again after it was lost.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{Answer, Order};
use crate::backend::DeviceChoice;
use crate::base::child;

/// How long a worker may take to end after its stdin was closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a run looks whether it was asked to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came from a worker.
pub(super) enum Heard {
    Answer(Answer),
    /// It ended.
    Gone(ExitStatus),
}

/// The workers of a run, by place.
pub(super) struct Workers {
    running: BTreeMap<usize, Worker>,
    /// From the threads that read what workers say. The number tells one start from another at the same place.
    heard: Receiver<(usize, u64, Option<Answer>)>,
    tell: Sender<(usize, u64, Option<Answer>)>,
    starts: u64,
}

struct Worker {
    start: u64,
    child: Child,
    /// Closed when the run is over.
    orders: Option<ChildStdin>,
}

impl Workers {
    pub(super) fn new() -> Self {
        let (tell, heard) = channel();
        Self { running: BTreeMap::new(), heard, tell, starts: 0 }
    }

    /// Gives an order to the worker of a place.
    pub(super) fn give(&mut self, place: usize, device: DeviceChoice, order: &Order) -> io::Result<()> {
        if let Some(worker) = self.running.get_mut(&place)
            && worker.write(order).is_ok()
        {
            return Ok(());
        }
        // None was started yet, or it is gone.
        let mut worker = self.start(place, device)?;
        worker.write(order)?;
        if let Some(mut gone) = self.running.insert(place, worker) {
            let _ = gone.child.wait();
        }
        Ok(())
    }

    /// Asks all workers to stop at their next safe point.
    pub(super) fn stop(&mut self) {
        // One that is gone has stopped.
        self.running.values_mut().for_each(|worker| drop(worker.write(&Order::Stop)));
    }

    /// What a worker says next, with its place; `None` if nothing comes for a moment.
    pub(super) fn hear(&mut self) -> Option<(usize, Heard)> {
        let (place, start, answer) = match self.heard.recv_timeout(LOOK_EVERY) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        };
        if self.running.get(&place).is_none_or(|worker| worker.start != start) {
            return None;
        }
        match answer {
            Some(answer) => Some((place, Heard::Answer(answer))),
            None => {
                let mut worker = self.running.remove(&place)?;
                // It closed its stdout, or said what nobody understands.
                let _ = worker.child.kill();
                worker.child.wait().ok().map(|status| (place, Heard::Gone(status)))
            }
        }
    }

    fn start(&mut self, place: usize, device: DeviceChoice) -> io::Result<Worker> {
        let mut arguments = env::args_os().skip(1);
        let mut command = Command::new(env::current_exe()?);
        // After the name of the command, because a `--` may follow.
        command.args(arguments.next()).arg("--worker").arg(device.to_string()).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or(io::ErrorKind::BrokenPipe)?;
        self.starts += 1;
        let (start, tell) = (self.starts, self.tell.clone());
        thread::spawn(move || {
            let mut lines = BufReader::new(answers).lines();
            while let Some(Ok(line)) = lines.next()
                && let Ok(answer) = serde_json::from_str(&line)
            {
                if tell.send((place, start, Some(answer))).is_err() {
                    return;
                }
            }
            let _ = tell.send((place, start, None));
        });
        Ok(Worker { start, child, orders })
    }
}

impl Worker {
    fn write(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        orders.write_all(&line).and_then(|()| orders.flush())
    }
}

/// None of them outlives the run.
impl Drop for Workers {
    fn drop(&mut self) {
        self.running.values_mut().for_each(|worker| worker.orders = None);
        let until = Instant::now() + PATIENCE;
        for worker in self.running.values_mut() {
            let _ = child::end(&mut worker.child, until);
        }
    }
}
