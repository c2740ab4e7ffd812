//! The training loop, which can be stopped and resumed at every step.
//!
//! After a step only the optimiser's tensors remain, so a checkpoint holds those and the number of the step. On the
//! CPU a resumed run gives the same bytes as one that was never interrupted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, Var};

use super::batches::{Batches, Order};
use super::checkpoint::{self, TrainingState};
use super::error::DistillError;
use super::feature_maps::{common_paths, predict};
use super::history::{FeatureLoss, History, HistoryLine, Mark};
use super::losses;
use super::optimiser::Optimiser;
use super::parameters::DistillParameters;
use crate::backend::{Random, threads};
use crate::base::{Interrupt, Progress};
use crate::data::Latents;
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::nn::{self, mean_square_difference};
use crate::sample::NoiseSchedule;

/// The least time between two notes about the loss.
const NOTE_EVERY: Duration = Duration::from_millis(500);

/// One retraining.
pub struct Distillation<'a> {
    /// The unpruned U-Net, on plain tensors: no graph is kept for it.
    pub teacher: &'a UNet,
    /// The pruned U-Net, on `variables`.
    pub student: &'a UNet,
    /// The student's weights by name, f32; they are changed in place.
    pub variables: &'a BTreeMap<String, Var>,
    /// The teacher's noise schedule; its prediction type decides the target of the task loss.
    pub schedule: &'a NoiseSchedule,
    /// Clean latents with their text.
    pub data: &'a Latents,
    /// The parameters.
    pub parameters: &'a DistillParameters,
    /// The device of all tensors.
    pub device: &'a Device,
    /// The stage's random streams.
    pub random: &'a Random,
    /// A folder that outlives a crash: checkpoint and history.
    pub checkpoint: &'a Path,
    /// When a checkpoint is written. Changes no result.
    pub cadence: Cadence,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked after every step for a request to stop.
    pub interrupt: &'a Interrupt,
}

/// When a checkpoint is written, besides at the end and on a request to stop.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// After so many steps.
    pub steps: Option<u64>,
    /// After so many seconds, but never so often that writing takes more than a twentieth of the time: the
    /// checkpoint of an SDXL student has 20 GB.
    pub seconds: f64,
}

impl Default for Cadence {
    /// Every ten seconds: the most that a crash can cost while checkpoints are small.
    fn default() -> Self {
        Self { steps: None, seconds: 10.0 }
    }
}

/// The result of a retraining.
#[derive(Debug)]
pub struct Distilled {
    /// The moving average of the weights, or the last weights if there is no average.
    pub weights: BTreeMap<String, Tensor>,
    /// `losses.jsonl` in the checkpoint folder.
    pub history: PathBuf,
}

impl Distillation<'_> {
    /// Trains to the last step, from the checkpoint if there is one.
    pub fn run(&self) -> Result<Distilled, DistillError> {
        threads::run(|| self.train())
    }

    fn train(&self) -> Result<Distilled, DistillError> {
        let steps = u64::from(self.parameters.steps);
        self.progress.length(steps, "steps");
        let optimiser = Optimiser::new(self.variables, self.parameters.ema_decay.get() > 0.0)?;
        let mut batches = self.batches()?;
        let state = match checkpoint::load(self.checkpoint, &optimiser.variables(), self.progress)? {
            Some(state) => {
                self.progress.resumed(state.step);
                state
            }
            None => TrainingState::new(0, self.feature_weights(&mut batches)?, Mark::default()),
        };
        let (paths, feature_weights): (Vec<_>, Vec<_>) = state.feature_weights.iter().cloned().unzip();
        batches.paths = paths;
        let mut history = History::open(self.checkpoint, &state.history)?;
        let order = Order::new(self.data.rows());
        let mut student = Student { training: self, batches, feature_weights, optimiser, order };
        let mut saved = Saved { step: state.step, at: Instant::now(), took: Duration::ZERO };
        let mut pace = Pace::new(state.step);
        self.progress.position(state.step);
        for step in state.step..steps {
            if self.interrupt.asked() {
                student.save(step, &mut history, &mut saved)?;
                self.interrupt.check()?;
            }
            let line = student.step(step)?;
            if self.writes_line(step) {
                history.push(&line)?;
            }
            let done = step + 1;
            self.progress.position(done);
            if let Some(rate) = pace.rate(done) {
                self.progress.note(&format!("loss {:.4} ({rate:.1} steps/s)", line.total));
            }
            if done == steps || self.cadence.is_due(done, &saved) {
                student.save(done, &mut history, &mut saved)?;
            }
        }
        history.sync()?;
        Ok(Distilled { weights: student.optimiser.result(), history: history.path().to_owned() })
    }

    fn batches(&self) -> Result<Batches<'_>, DistillError> {
        Ok(Batches {
            teacher: self.teacher,
            data: self.data,
            schedule: self.schedule,
            parameters: self.parameters,
            random: self.random,
            device: self.device,
            unconditional: self.data.unconditional(self.device)?,
            paths: Vec::new(),
            levels: self.student.config().levels.len(),
        })
    }

    /// The weights `a_l` by path, measured on the first batches with the student before training.
    fn feature_weights(&self, batches: &mut Batches<'_>) -> Result<Vec<(String, f32)>, DistillError> {
        let mut order = Order::new(self.data.rows());
        let first = batches.piece(0, 0, &mut order)?;
        let paths = common_paths(&first.input, self.student, self.teacher, self.parameters.features)?;
        if paths.is_empty() && self.parameters.feature_weight.get() > 0.0 {
            let reason = "they have no feature map in common".to_owned();
            return Err(DistillError::Mismatch { reason });
        }
        batches.paths = paths;
        let (mut squares, mut plain) = (vec![0.0; batches.paths.len()], vec![0.0; batches.paths.len()]);
        for step in 0..u64::from(self.parameters.normalisation_batches) {
            // There is no checkpoint yet: a later run measures again.
            self.interrupt.check()?;
            for piece in 0..self.parameters.gradient_accumulation.get() {
                let batch = batches.piece(step, piece, &mut order)?;
                let student = predict(self.student, &batch.input, &batches.paths)?;
                for (index, (student, teacher)) in
                    student.features.iter().zip(&batch.teacher.features).enumerate()
                {
                    squares[index] += f64::from(losses::mean_square(teacher)?.to_scalar::<f32>()?);
                    plain[index] += f64::from(mean_square_difference(student, teacher)?.to_scalar::<f32>()?);
                }
            }
        }
        let pieces = (self.parameters.normalisation_batches.get()
            * self.parameters.gradient_accumulation.get()) as f64;
        squares.iter_mut().chain(&mut plain).for_each(|sum| *sum /= pieces);
        if let Some(index) = squares.iter().zip(&plain).position(|(a, b)| !(a + b).is_finite()) {
            let term = format!("feature loss of {}", batches.paths[index]);
            return Err(self.not_finite(0, term, plain[index] as f32));
        }
        let weights = self.parameters.normalisation.weights(&squares, &plain);
        Ok(batches.paths.iter().cloned().zip(weights).collect())
    }

    fn writes_line(&self, step: u64) -> bool {
        step.is_multiple_of(self.parameters.history_every.into())
            || step + 1 == u64::from(self.parameters.steps)
    }

    fn not_finite(&self, step: u64, term: String, value: f32) -> DistillError {
        let steps = u64::from(self.parameters.steps);
        let learning_rate = self.parameters.learning_rate_at(step);
        DistillError::NotFinite { step, steps, term, value, learning_rate }
    }
}

/// The student with everything that an update reads and changes.
struct Student<'a> {
    training: &'a Distillation<'a>,
    batches: Batches<'a>,
    /// `a_l` in the order of the batches' paths.
    feature_weights: Vec<f32>,
    optimiser: Optimiser,
    order: Order,
}

impl Student<'_> {
    /// One update; nothing is changed if a term is not finite.
    fn step(&mut self, step: u64) -> Result<HistoryLine, DistillError> {
        let (training, parameters) = (self.training, self.training.parameters);
        let DistillParameters { task_weight, output_weight, feature_weight, .. } = *parameters;
        let weights = losses::term_weights(
            task_weight.get(),
            output_weight.get(),
            feature_weight.get(),
            &self.feature_weights,
        );
        let pieces = parameters.gradient_accumulation.get();
        let shares: Vec<f32> = weights.iter().map(|weight| weight / pieces as f32).collect();
        let mut terms = vec![0f32; weights.len()];
        let mut gradients = Gradients::default();
        for piece in 0..pieces {
            let batch = self.batches.piece(step, piece, &mut self.order)?;
            let student = predict(training.student, &batch.input, &self.batches.paths)?;
            let measured = losses::terms(&student, &batch.teacher, &batch.target)?;
            for (index, value) in measured.to_vec1::<f32>()?.into_iter().enumerate() {
                if !value.is_finite() {
                    return Err(training.not_finite(step, self.term(index), value));
                }
                terms[index] += value / pieces as f32;
            }
            let mut store = nn::backward(&losses::total(&measured, &shares, training.device)?)?;
            gradients.add(&mut store, self.optimiser.parameters())?;
        }
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Err(training.not_finite(step, "gradient norm".to_owned(), norm as f32));
        }
        self.optimiser.update(&gradients, norm, step, parameters)?;
        Ok(self.line(step, &terms, &weights, norm))
    }

    fn line(&self, step: u64, terms: &[f32], weights: &[f32], norm: f64) -> HistoryLine {
        let maps = self.batches.paths.iter().zip(&self.feature_weights).zip(&terms[2..]);
        let features = maps
            .map(|((path, weight), plain)| {
                (path.clone(), FeatureLoss { plain: *plain, weighted: weight * plain })
            })
            .collect();
        let total: f64 =
            terms.iter().zip(weights).map(|(term, weight)| f64::from(*term) * f64::from(*weight)).sum();
        HistoryLine {
            step,
            task: terms[0],
            output: terms[1],
            features,
            total: total as f32,
            gradient_norm: norm as f32,
            learning_rate: self.training.parameters.learning_rate_at(step),
        }
    }

    /// The name of one of the terms.
    fn term(&self, index: usize) -> String {
        match index {
            0 => "task loss".to_owned(),
            1 => "output loss".to_owned(),
            _ => format!("feature loss of {}", self.batches.paths[index - 2]),
        }
    }

    /// Writes a checkpoint unless the last one is of this step. The history is written first: a checkpoint may never
    /// be ahead of it.
    fn save(&self, step: u64, history: &mut History, saved: &mut Saved) -> Result<(), DistillError> {
        if saved.step == step && step > 0 {
            return Ok(());
        }
        let begun = Instant::now();
        let mark = history.sync()?;
        let weights = self.batches.paths.iter().cloned().zip(self.feature_weights.iter().copied()).collect();
        checkpoint::save(
            self.training.checkpoint,
            &TrainingState::new(step, weights, mark),
            &self.optimiser.variables(),
        )?;
        *saved = Saved { step, at: Instant::now(), took: begun.elapsed() };
        Ok(())
    }
}

/// The last checkpoint.
struct Saved {
    step: u64,
    at: Instant,
    took: Duration,
}

impl Cadence {
    fn is_due(&self, step: u64, saved: &Saved) -> bool {
        let by_steps = self.steps.is_some_and(|steps| step - saved.step >= steps);
        by_steps || saved.at.elapsed().as_secs_f64() >= self.seconds.max(20.0 * saved.took.as_secs_f64())
    }
}

/// Steps per second since the last note.
struct Pace {
    step: u64,
    at: Instant,
}

impl Pace {
    fn new(step: u64) -> Self {
        Self { step, at: Instant::now() }
    }

    /// The rate, if a note is due.
    fn rate(&mut self, step: u64) -> Option<f64> {
        let elapsed = self.at.elapsed();
        if elapsed < NOTE_EVERY {
            return None;
        }
        let rate = (step - self.step) as f64 / elapsed.as_secs_f64();
        *self = Self::new(step);
        Some(rate)
    }
}
