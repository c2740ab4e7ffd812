//! What a training writes down and says while it runs: its losses, validations and checkpoints, which agree after a crash,
//! and what watchers and the terminal are told. It notices when the training diverges.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::checkpoint::{self, TrainingState};
use super::divergence::Divergence;
use super::error::DistillError;
use super::history::{self, HISTORY_FILE, HistoryLine};
use super::lines::Lines;
use super::parameters::DistillParameters;
use super::term_weights::Measured;
use super::validation::{VALIDATION_FILE, ValidationLine};
use crate::backend::memory;
use crate::base::{Progress, units};
use crate::train::collective::Collective;
use crate::train::watch::Watcher;
use crate::train::{Held, release};

/// The least time between two notes about the loss.
const NOTE_EVERY: Duration = Duration::from_millis(500);

/// When a checkpoint is written, besides at the end and on a request to stop, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// After so many steps.
    pub steps: Option<u64>,
    /// After so many seconds, but never so often that writing takes more than a twentieth of the time: the
    /// checkpoint of an SDXL student has 20 GB.
    pub seconds: f64,
    /// How many checkpoints are kept.
    pub keep: usize,
}

impl Default for Cadence {
    /// Every ten seconds: the most that a crash can cost while checkpoints are small. One more than the newest is kept: it
    /// may be damaged.
    fn default() -> Self {
        Self { steps: None, seconds: 10.0, keep: 2 }
    }
}

/// The last checkpoint.
struct Saved {
    step: u64,
    at: Instant,
    took: Duration,
}

/// What the records of a training need to know of it.
pub(super) struct Desk<'a> {
    pub(super) parameters: &'a DistillParameters,
    /// The folder of checkpoints and records.
    pub(super) folder: &'a Path,
    pub(super) cadence: Cadence,
    pub(super) watcher: &'a dyn Watcher,
    pub(super) progress: &'a dyn Progress,
}

/// A training's records.
pub(super) struct Diary<'a> {
    desk: Desk<'a>,
    history: Lines,
    validation: Lines,
    /// The line of the last step, if it is none of those that are written anyway.
    last: Option<HistoryLine>,
    divergence: Divergence,
    saved: Saved,
    /// The step and time of the last note.
    noted: (u64, Instant),
}

impl<'a> Diary<'a> {
    /// Goes on with the records of a state.
    pub(super) fn open(desk: Desk<'a>, state: &TrainingState) -> Result<Self, DistillError> {
        let history = Lines::open(desk.folder.join(HISTORY_FILE), &state.history)?;
        let validation = Lines::open(desk.folder.join(VALIDATION_FILE), &state.validation)?;
        let before = history::read(history.path()).map_err(DistillError::file(history.path()))?;
        let divergence = Divergence::after(before.iter().map(|line| line.total));
        desk.watcher.begin(state.step);
        let is_last = state.step == u64::from(desk.parameters.steps);
        Ok(Self {
            desk,
            history,
            validation,
            last: state.last.clone().filter(|_| is_last),
            divergence,
            saved: Saved { step: state.step, at: Instant::now(), took: Duration::ZERO },
            noted: (state.step, Instant::now()),
        })
    }

    /// Takes the line of a step that is done. Fails if the training has diverged.
    pub(super) fn line(&mut self, line: HistoryLine) -> Result<(), DistillError> {
        let (parameters, done) = (self.desk.parameters, line.step + 1);
        if let Some(median) = self.divergence.push(line.total) {
            return Err(self.diverged(&line, median));
        }
        let is_regular = line.step.is_multiple_of(parameters.history_every.into());
        let is_last = done == u64::from(parameters.steps);
        if is_regular || is_last {
            let held =
                memory::resident_bytes().map(|bytes| ("training/resident_bytes".to_owned(), bytes as f64));
            let numbers: Vec<_> = line.numbers().into_iter().chain(held).collect();
            self.desk.watcher.numbers(line.step, &numbers);
        }
        if is_regular {
            self.history.push(&line)?;
        }
        self.desk.progress.position(done);
        self.note(&line, done)?;
        self.last = Some(line).filter(|_| is_last && !is_regular);
        Ok(())
    }

    /// Notes the loss, and lets those see the history who read it while the training runs.
    fn note(&mut self, line: &HistoryLine, done: u64) -> Result<(), DistillError> {
        let (step, at) = self.noted;
        let elapsed = at.elapsed();
        if elapsed < NOTE_EVERY {
            return Ok(());
        }
        let pace = (done - step) as f64 / elapsed.as_secs_f64();
        let memory = memory::resident_bytes().map(units::bytes).map(|text| format!(", memory {text}"));
        self.desk.progress.note(&format!(
            "loss {:.4} ({pace:.1} steps/s, learning rate {:.1e}{})",
            line.total,
            line.learning_rate,
            memory.unwrap_or_default(),
        ));
        self.noted = (done, Instant::now());
        self.history.flush()
    }

    /// Takes the losses of a validation.
    pub(super) fn validated(&mut self, line: &ValidationLine) -> Result<(), DistillError> {
        self.desk.watcher.numbers(line.step, &line.numbers());
        self.validation.push(line)?;
        self.validation.flush()
    }

    /// Whether a checkpoint is due after so many steps. There is none while the loss is suspicious.
    pub(super) fn is_due(&self, done: u64) -> bool {
        let (Cadence { steps, seconds, .. }, saved) = (self.desk.cadence, &self.saved);
        let by_steps = steps.is_some_and(|steps| done - saved.step >= steps);
        let pause = seconds.max(20.0 * saved.took.as_secs_f64());
        let is_due = by_steps || saved.at.elapsed().as_secs_f64() >= pause;
        done == u64::from(self.desk.parameters.steps) || (is_due && !self.divergence.is_suspicious())
    }

    /// Writes a checkpoint unless the last one is of this step. The records are written first: a checkpoint may never
    /// be ahead of them.
    pub(super) fn save(
        &mut self,
        step: u64,
        measured: &Measured,
        tensors: &[Held],
        collective: &dyn Collective,
    ) -> Result<(), DistillError> {
        if self.saved.step == step && step > 0 {
            return Ok(release(collective)?);
        }
        let begun = Instant::now();
        let (history, validation) = (self.history.sync()?, self.validation.sync()?);
        let state = TrainingState::new(step, measured.clone(), history, validation, self.last.clone());
        checkpoint::save(self.desk.folder, &state, tensors, collective, self.desk.cadence.keep)?;
        self.saved = Saved { step, at: Instant::now(), took: begun.elapsed() };
        Ok(())
    }

    /// Whether a request to stop may write a checkpoint.
    pub(super) fn is_sound(&self) -> bool {
        !self.divergence.is_suspicious()
    }

    /// Completes the records of a training that is done. Returns the files of its losses and validations.
    pub(super) fn finish(mut self) -> Result<(PathBuf, PathBuf), DistillError> {
        // After the last checkpoint, so that more steps can go on from there.
        if let Some(last) = self.last.take() {
            self.history.push(&last)?;
        }
        self.history.sync()?;
        self.validation.sync()?;
        Ok((self.history.path().to_owned(), self.validation.path().to_owned()))
    }

    /// An error of a step, with the step of the last checkpoint.
    pub(super) fn explain(&self, error: DistillError) -> DistillError {
        match error {
            DistillError::NotFinite { step, steps, term, value, learning_rate, .. } => {
                DistillError::NotFinite {
                    step,
                    steps,
                    term,
                    value,
                    learning_rate,
                    last: self.last_checkpoint(),
                }
            }
            other => other,
        }
    }

    fn diverged(&self, line: &HistoryLine, median: f64) -> DistillError {
        let by = [
            ("task", line.weighted.task),
            ("output", line.weighted.output),
            ("features", line.weighted.features),
        ];
        let largest = by.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("task", |(name, _)| name);
        DistillError::Diverged {
            step: line.step,
            steps: self.desk.parameters.steps.into(),
            total: line.total,
            median,
            term: largest.to_owned(),
            learning_rate: line.learning_rate,
            last: self.last_checkpoint(),
        }
    }

    fn last_checkpoint(&self) -> String {
        match self.saved.step {
            0 => "there is no checkpoint of an earlier step".to_owned(),
            step => format!("the checkpoint of step {step} is sound"),
        }
    }
}
