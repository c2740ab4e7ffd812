//! The training loop, which can be stopped and resumed at every step.
//!
//! After a step only the optimiser's tensors remain, so a checkpoint holds those and the number of the step. On the
//! CPU a resumed run gives the same bytes as one that was never interrupted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use candle_core::{Device, Tensor};

use super::batches::{Batches, TrainingBatch};
use super::checkpoint::{self, TrainingState};
use super::diary::{Cadence, Desk, Diary};
use super::draws::Ahead;
use super::easel::Easel;
use super::error::DistillError;
use super::held_out::Division;
use super::history::{FeatureLoss, HISTORY_FILE, HistoryLine};
use super::order::Order;
use super::parameters::DistillParameters;
use super::term_weights::{ByKind, Measured, TermWeights, only, term};
use super::validation::VALIDATION_FILE;
use crate::backend::{Random, threads};
use crate::base::{Interrupt, Interrupted, Progress};
use crate::data::Latents;
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::sample::NoiseSchedule;
use crate::train::collective::Collective;
use crate::train::watch::Watcher;
use crate::train::{ActivationCheckpointing, Average, Held, Optimiser, Shards, Trainable, serve};

/// One retraining.
pub struct Distillation<'a> {
    /// The unpruned U-Net, on plain tensors: no graph is kept for it.
    pub teacher: &'a UNet,
    /// The pruned U-Net; its weights that are not frozen are changed in place.
    pub student: &'a Trainable,
    /// The teacher's noise schedule; its prediction type decides the target of the task loss.
    pub schedule: &'a NoiseSchedule,
    /// Clean latents with their text.
    pub data: &'a Latents,
    /// The parameters.
    pub parameters: &'a DistillParameters,
    /// Which activations are computed again. Changes no result.
    pub checkpointing: ActivationCheckpointing,
    /// The device of all tensors.
    pub device: &'a Device,
    /// The stage's random streams.
    pub random: &'a Random,
    /// A folder that outlives a crash: checkpoint and history.
    pub checkpoint: &'a Path,
    /// When a checkpoint is written. Changes no result.
    pub cadence: Cadence,
    /// Draws the pictures of validations, if they are asked for.
    pub easel: Option<&'a Easel<'a>>,
    /// Receives what is measured.
    pub watcher: &'a dyn Watcher,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked after every step for a request to stop.
    pub interrupt: &'a Interrupt,
    /// The processes that train together. The first of them keeps the records, draws and tells watchers.
    pub collective: &'a dyn Collective,
}

/// The result of a retraining.
#[derive(Debug)]
pub struct Distilled {
    /// The moving average of the weights, or the last weights if there is no average.
    pub weights: BTreeMap<String, Tensor>,
    /// `losses.jsonl` in the checkpoint folder.
    pub history: PathBuf,
    /// `validation.jsonl` beside it, empty if there is no validation.
    pub validation: PathBuf,
}

impl Distillation<'_> {
    /// Trains to the last step, from the checkpoint if there is one.
    pub fn run(&self) -> Result<Distilled, DistillError> {
        threads::run(|| {
            let batches = self.batches()?;
            thread::scope(|scope| {
                let ahead = Ahead::start(scope, batches.draws());
                self.train(batches, ahead)
            })
        })
    }

    fn train(&self, mut batches: Batches<'_>, ahead: Ahead) -> Result<Distilled, DistillError> {
        let steps = u64::from(self.parameters.steps);
        self.progress.length(steps, "steps");
        self.parameters.check_freeze(self.student.weights().keys().map(String::as_str))?;
        let sizes: Vec<usize> = self.student.variables().map(|(_, weight)| weight.elem_count()).collect();
        let mut shards = Shards::new(self.collective, &sizes);
        if let Some(note) = shards.connect(self.device)? {
            self.progress.note(&note);
        }
        let (moments, average) = (self.parameters.moments, self.average());
        let optimiser =
            Optimiser::sharded(self.student.variables(), moments, &average, |index| shards.owns(index))?;
        let division = Division::new(self.parameters, self.data.rows(), self.random)?;
        let state = self.begin(&optimiser.held(&shards), &mut batches, &division.trained)?;
        let mut diary = match self.collective.rank() {
            0 => Some(Diary::open(self.desk(), &state)?),
            _ => None,
        };
        batches.paths = state.measured.features.iter().map(|(path, _)| path.clone()).collect();
        let weights = TermWeights::new(self.parameters, &state.measured);
        let Division { trained, held_out } = division;
        let (order, measured) = (self.order(&trained), state.measured);
        let mut student =
            Student { training: self, batches, ahead, measured, weights, optimiser, shards, order, held_out };
        self.progress.position(state.step);
        for step in state.step..steps {
            if self.collective.any(self.interrupt.asked())? {
                if self.collective.any(diary.as_ref().is_some_and(Diary::is_sound))? {
                    student.save(step, &mut diary)?;
                }
                return Err(Interrupted.into());
            }
            student.validate(step, &mut diary)?;
            let line = student.step(step).map_err(|error| match &diary {
                Some(diary) => diary.explain(error),
                None => error,
            })?;
            self.together(diary.as_mut().map_or(Ok(()), |diary| diary.line(line)))?;
            if self.collective.any(diary.as_ref().is_some_and(|diary| diary.is_due(step + 1)))? {
                student.save(step + 1, &mut diary)?;
            }
        }
        student.validate(steps, &mut diary)?;
        let (history, validation) = match diary {
            Some(diary) => diary.finish()?,
            None => (self.checkpoint.join(HISTORY_FILE), self.checkpoint.join(VALIDATION_FILE)),
        };
        Ok(Distilled { weights: student.result()?, history, validation })
    }

    /// The state of the checkpoint, which fills the tensors, or that of the beginning.
    fn begin(
        &self,
        tensors: &[Held],
        batches: &mut Batches<'_>,
        rows: &[usize],
    ) -> Result<TrainingState, DistillError> {
        match checkpoint::load(self.checkpoint, tensors, self.collective, self.progress)? {
            Some(state) => {
                self.progress.resumed(state.step);
                Ok(state)
            }
            None => Ok(TrainingState::first(self.measure(batches, rows)?)),
        }
    }

    /// What one rank did alone: if it failed, all ranks end here. The others have no error of their own, and leave as they
    /// do when asked to stop.
    fn together(&self, alone: Result<(), DistillError>) -> Result<(), DistillError> {
        match self.collective.any(alone.is_err())? {
            true => alone.and(Err(Interrupted.into())),
            false => Ok(()),
        }
    }

    /// The pieces of a batch that this rank trains with.
    pub(super) fn own_pieces(&self) -> Result<Range<usize>, DistillError> {
        let (rank, size) = (self.collective.rank(), self.collective.size());
        let pieces = self.parameters.pieces(size)?;
        Ok(rank * pieces..(rank + 1) * pieces)
    }

    fn desk(&self) -> Desk<'_> {
        Desk {
            parameters: self.parameters,
            folder: self.checkpoint,
            cadence: self.cadence,
            watcher: self.watcher,
            progress: self.progress,
        }
    }

    fn average(&self) -> Average {
        match (self.parameters.ema_decay.get() > 0.0, self.parameters.ema_on_host) {
            (false, _) => Average::None,
            (true, true) => Average::On(Device::Cpu),
            (true, false) => Average::On(self.device.clone()),
        }
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
            pieces: self.parameters.pieces(self.collective.size())? * self.collective.size(),
            levels: self.student.unet().config().levels.len(),
        })
    }

    pub(super) fn order(&self, rows: &[usize]) -> Order {
        Order::new(rows, &self.data.shapes(), self.parameters.batch_size.get())
    }

    fn writes_line(&self, step: u64) -> bool {
        step.is_multiple_of(self.parameters.history_every.into())
            || step + 1 == u64::from(self.parameters.steps)
    }

    pub(super) fn not_finite(&self, step: u64, term: String, value: f32) -> DistillError {
        let steps = u64::from(self.parameters.steps);
        let learning_rate = self.parameters.learning_rate_at(step);
        let last = "there is no checkpoint yet".to_owned();
        DistillError::NotFinite { step, steps, term, value, learning_rate, last }
    }
}

/// The student with everything that an update reads and changes.
struct Student<'a> {
    training: &'a Distillation<'a>,
    batches: Batches<'a>,
    ahead: Ahead,
    measured: Measured,
    weights: TermWeights,
    optimiser: Optimiser,
    /// Who owns which of the optimiser's tensors.
    shards: Shards<'a>,
    order: Order,
    /// The rows that losses are measured on.
    held_out: Vec<usize>,
}

impl Student<'_> {
    /// One update; nothing is changed if a term is not finite.
    fn step(&mut self, step: u64) -> Result<HistoryLine, DistillError> {
        let (training, parameters) = (self.training, self.training.parameters);
        let pieces = self.batches.pieces;
        let shares = self.weights.divided(pieces);
        let mut measured = Vec::new();
        let mut gradients = Gradients::default();
        let asked = parameters.gradient_norms_every.is_some_and(|every| step.is_multiple_of(every.into()));
        // Where no line is written, nobody would see them.
        let wants_norms = asked && training.writes_line(step);
        let mut by_kind: [Gradients; 3] = Default::default();
        for piece in training.own_pieces()? {
            let batch = self.batch(step, piece)?;
            let differentiate = |weights: &[f32], into: &mut Gradients| {
                let (student, paths) = (training.student, &self.batches.paths);
                batch.differentiate(student, paths, training.checkpointing, weights, into)
            };
            measured.push(differentiate(&shares, &mut gradients)?);
            for (kind, into) in by_kind.iter_mut().enumerate().filter(|_| wants_norms) {
                differentiate(&only(kind, &shares), into)?;
            }
        }
        // Read once all passes are queued: reading waits for the device.
        let mut terms = vec![0f32; shares.len()];
        for piece in measured {
            for (sum, value) in terms.iter_mut().zip(piece.to_vec1::<f32>()?) {
                *sum += value / pieces as f32;
            }
        }
        let terms = self.mean_of_ranks(step, &terms)?;
        let norm_of = |gradients: &mut Gradients| {
            self.shards.reduce(gradients)?;
            self.shards.norm(gradients)
        };
        let mut norms = [0f32; 3];
        for (norm, gradients) in norms.iter_mut().zip(&mut by_kind).filter(|_| wants_norms) {
            *norm = norm_of(gradients)? as f32;
        }
        let [task, output, features] = norms;
        let norms = ByKind { task, output, features };
        let norm = norm_of(&mut gradients)?;
        if !norm.is_finite() {
            return Err(training.not_finite(step, "gradient norm".to_owned(), norm as f32));
        }
        self.optimiser.update(&gradients, norm, &parameters.update(step))?;
        self.shards.share(self.optimiser.parameters())?;
        Ok(self.line(step, &terms, norm, wants_norms.then_some(norms)))
    }

    /// A piece of the batch of a step. While it is trained on, the next one is drawn.
    fn batch(&mut self, step: u64, piece: usize) -> Result<TrainingBatch, DistillError> {
        let own = self.training.own_pieces()?;
        let next = match piece + 1 < own.end {
            true => Some((step, piece + 1)),
            false => {
                Some((step + 1, own.start)).filter(|(step, _)| *step < self.training.parameters.steps.into())
            }
        };
        let places = self.batches.places(step, piece, &mut self.order);
        let next = next.map(|(step, piece)| self.batches.places(step, piece, &mut self.order));
        self.batches.finish(self.ahead.take(places, next)?)
    }

    /// The terms of all ranks together, if they are finite.
    fn mean_of_ranks(&self, step: u64, terms: &[f32]) -> Result<Vec<f32>, DistillError> {
        let mut sums: Vec<f64> = terms.iter().copied().map(f64::from).collect();
        self.training.collective.sum(&mut sums)?;
        let terms: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        match terms.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                Err(self.training.not_finite(step, term(index, &self.batches.paths), terms[index]))
            }
            None => Ok(terms),
        }
    }

    fn line(
        &self,
        step: u64,
        terms: &[f32],
        gradient_norm: f64,
        gradient_norms: Option<ByKind>,
    ) -> HistoryLine {
        let maps = self.measured.features.iter().zip(&terms[2..]);
        let features = maps
            .map(|((path, weight), plain)| {
                (path.clone(), FeatureLoss { plain: *plain, weighted: weight * plain })
            })
            .collect();
        HistoryLine {
            step,
            task: terms[0],
            output: terms[1],
            features,
            weighted: self.weights.weighted(terms),
            total: self.weights.total(terms),
            gradient_norm: gradient_norm as f32,
            gradient_norms,
            learning_rate: self.training.parameters.learning_rate_at(step),
        }
    }

    /// Measures and draws what is asked for after so many steps, with the weights that the training would end with now.
    fn validate(&self, done: u64, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        let training = self.training;
        let steps = training.parameters.steps.into();
        let Some(_) = training.parameters.validation.as_ref().filter(|asked| asked.is_due(done, steps))
        else {
            return Ok(());
        };
        let weights = self.result()?;
        training.together(diary.as_mut().map_or(Ok(()), |diary| self.look(&weights, done, diary)))
    }

    /// Measures and draws with these weights.
    fn look(
        &self,
        weights: &BTreeMap<String, Tensor>,
        done: u64,
        diary: &mut Diary<'_>,
    ) -> Result<(), DistillError> {
        let training = self.training;
        let unet = training.student.unet().on_weights(weights, training.device)?;
        if !self.held_out.is_empty() {
            let (rows, measured) = (&self.held_out, &self.measured);
            diary.validated(&self.batches.validate(&unet, rows, done, measured, &self.weights)?)?;
        }
        match training.easel {
            Some(easel) => {
                easel.draw(&unet, done, training.schedule, training.random, training.device, training.watcher)
            }
            None => Ok(()),
        }
    }

    /// The weights that the training would end with now, complete on rank 0.
    fn result(&self) -> Result<BTreeMap<String, Tensor>, DistillError> {
        let all = self.training.student.weights().iter();
        let mut weights: BTreeMap<String, Tensor> =
            all.map(|(name, weight)| (name.clone(), weight.as_detached_tensor())).collect();
        weights.extend(self.optimiser.result(&self.shards)?);
        Ok(weights)
    }

    /// Writes a checkpoint, on rank 0 with the tensors of all ranks.
    fn save(&self, step: u64, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        let (held, collective) = (self.optimiser.held(&self.shards), self.training.collective);
        match diary {
            Some(diary) => diary.save(step, &self.measured, &held, collective),
            None => Ok(serve(collective, &held)?),
        }
    }
}
