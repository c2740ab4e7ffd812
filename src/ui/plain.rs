//! Lines for logs and for terminals that cannot redraw.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::words::{self, Teller};
use crate::base::StageId;
use crate::run::{Event, Sink};

/// Often enough to show that work continues, rarely enough for the log of a night: 12 lines a minute.
const EVERY: Duration = Duration::from_secs(5);

/// Writes a line for each event, and from time to time one for the progress of a stage.
pub struct Plain<W> {
    inner: Mutex<Inner<W>>,
}

struct Inner<W> {
    out: W,
    running: HashMap<StageId, Running>,
    /// When a file that is being hashed was last mentioned.
    hashing: Option<Instant>,
    teller: Teller,
}

/// The state of a running stage.
struct Running {
    /// When its first progress came, and how far it was: the rate counts from there, since a resumed
    /// stage begins above zero.
    first: Option<(Instant, u64)>,
    told: Instant,
    note: Option<String>,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            inner: Mutex::new(Inner {
                out,
                running: HashMap::new(),
                hashing: None,
                teller: Teller::default(),
            }),
        }
    }
}

impl<W: Write + Send> Sink for Plain<W> {
    fn event(&self, event: &Event) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let line = inner.line(event, Instant::now());
        if let Some(line) = line {
            // A log that cannot be written must not stop the work.
            let _ = writeln!(inner.out, "{line}");
        }
    }
}

impl<W> Inner<W> {
    fn line(&mut self, event: &Event, now: Instant) -> Option<String> {
        match event {
            Event::Hashing { path, done, total } => {
                let is_due = self.hashing.is_none_or(|told| now.duration_since(told) >= EVERY);
                self.hashing =
                    if done == total { None } else { self.hashing.filter(|_| !is_due).or(Some(now)) };
                return is_due.then(|| words::hashing(path, *done, *total));
            }
            Event::StageStarted { stage, .. } => {
                self.running.insert(stage.clone(), Running { first: None, told: now, note: None });
            }
            Event::StageProgress { stage, done, total, unit } => {
                let running = self.running.get_mut(stage)?;
                let (since, from) = *running.first.get_or_insert((now, *done));
                if now.duration_since(running.told) < EVERY {
                    return None;
                }
                running.told = now;
                let pace = pace(*done, *total, done.saturating_sub(from), now.duration_since(since));
                let parts = [Some(format!("{done}/{total} {unit}")), pace, running.note.take()];
                let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
                return Some(words::state("running", stage, &text));
            }
            Event::StageNote { stage, text } => {
                let held = self.running.get_mut(stage).and_then(|running| running.note.replace(text.clone()));
                // A note waits for the next line of progress. If another note replaces it first, it is written at
                // once, unless the two differ only in numbers.
                return held
                    .filter(|held| wording(held) != wording(text))
                    .map(|held| words::state("note", stage, &held));
            }
            _ => {}
        }
        let held = words::ended(event).and_then(|stage| Some((stage, self.running.remove(stage)?.note?)));
        let line = self.teller.line(event)?;
        Some(match held {
            Some((stage, note)) => format!("{}\n{line}", words::state("note", stage, &note)),
            None => line,
        })
    }
}

/// The pace since the first progress, if there is any yet; `since` pieces took `took`.
fn pace(done: u64, total: u64, since: u64, took: Duration) -> Option<String> {
    let rate = since as f64 / took.as_secs_f64();
    let known = since > 0 && rate.is_finite();
    known.then(|| words::pace(rate, total.saturating_sub(done) as f64 / rate))
}

/// A note without its numbers.
fn wording(note: &str) -> String {
    note.chars().filter(|letter| letter.is_alphabetic()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    fn progress(done: u64) -> Event {
        Event::StageProgress { stage: "scores".into(), done, total: 256, unit: "points".into() }
    }

    fn note(text: &str) -> Event {
        Event::StageNote { stage: "scores".into(), text: text.into() }
    }

    #[test]
    fn progress_is_shown_at_intervals_with_rate_and_time_left() {
        let mut inner = Inner { out: (), running: HashMap::new(), hashing: None, teller: Teller::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (stage, key) = (StageId::from("scores"), Digest::of(b"key"));
        let started = Event::StageStarted { stage: stage.clone(), name: "score".into(), key };
        assert!(inner.line(&started, at(0)).is_some_and(|line| !line.contains("checkpoint")));
        let unit = "points".to_owned();
        let resumed = Event::StageResumed { stage: stage.clone(), done: 100, total: 256, unit };
        let line = inner.line(&resumed, at(1)).unwrap_or_default();
        assert_eq!(line, "resumed     scores: from its checkpoint, 100 of 256 points are done");
        assert_eq!(inner.line(&progress(100), at(1)), None);
        assert_eq!(inner.line(&note("loss 0.5"), at(1)), None);
        assert_eq!(inner.line(&note("loss 0.4"), at(2)), None);
        let line = inner.line(&progress(126), at(14)).unwrap_or_default();
        assert_eq!(line, "running     scores: 126/256 points, 2.0/s, 1 min 05 s left, loss 0.4");
        assert_eq!(inner.line(&progress(127), at(15)), None);
        let interrupted = inner.line(&Event::StageInterrupted { stage }, at(16)).unwrap_or_default();
        assert_eq!(interrupted, "interrupted scores: run the same command again to resume");
    }

    #[test]
    fn no_note_is_lost() {
        let mut inner = Inner { out: (), running: HashMap::new(), hashing: None, teller: Teller::default() };
        let start = Instant::now();
        let (stage, key) = (StageId::from("scores"), Digest::of(b"key"));
        inner.line(&Event::StageStarted { stage: stage.clone(), name: "score".into(), key }, start);
        assert_eq!(inner.line(&note("3 prompts were cut"), start), None);
        let pushed_out = inner.line(&note("loss 0.4"), start).unwrap_or_default();
        assert_eq!(pushed_out, "note        scores: 3 prompts were cut");
        let failed = inner.line(&Event::StageFailed { stage, error: "no".into() }, start).unwrap_or_default();
        assert_eq!(failed, "note        scores: loss 0.4\nfailed      scores: no");
    }

    #[test]
    fn a_file_that_is_hashed_is_shown_at_intervals() {
        let mut inner = Inner { out: (), running: HashMap::new(), hashing: None, teller: Teller::default() };
        let start = Instant::now();
        let mut line = |done, seconds| {
            let event =
                Event::Hashing { path: "/models/sd/unet/a\u{1b}.bin".into(), done, total: 40_000_000_000 };
            inner.line(&event, start + Duration::from_secs(seconds))
        };
        let first = line(1_000_000_000, 1);
        assert_eq!(first.as_deref(), Some("hashing     unet/a\\u{1b}.bin: 1.0 GB of 40.0 GB"));
        assert_eq!(line(2_000_000_000, 3), None);
        assert!(line(6_000_000_000, 7).is_some_and(|line| line.contains("6.0 GB of")));
        assert_eq!(line(40_000_000_000, 9), None);
        assert!(line(1, 10).is_some(), "another file");
    }
}
