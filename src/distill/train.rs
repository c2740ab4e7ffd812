//! The training loop, which can be stopped and resumed at every step.
//!
//! After a step only the optimiser's tensors remain, so a checkpoint holds those and the number of the step. On the
//! CPU a resumed run gives the same bytes as one that was never interrupted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::batches::{Batches, Order};
use super::cadence::{Cadence, Pace, Saved};
use super::checkpoint::{self, TrainingState};
use super::error::DistillError;
use super::feature_maps::common_paths;
use super::history::{FeatureLoss, HISTORY_FILE, History, HistoryLine, Mark};
use super::losses;
use super::parameters::DistillParameters;
use super::term_weights::{ByKind, Measured, TermWeights, only};
use crate::backend::{Random, threads};
use crate::base::{Interrupt, Interrupted, Progress};
use crate::data::Latents;
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::sample::NoiseSchedule;
use crate::train::collective::Collective;
use crate::train::{ActivationCheckpointing, Average, Held, Optimiser, Shards, Trainable};

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
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked after every step for a request to stop.
    pub interrupt: &'a Interrupt,
    /// The processes that train together.
    pub collective: &'a dyn Collective,
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
        self.parameters.check_freeze(self.student.weights().keys().map(String::as_str))?;
        let sizes: Vec<usize> = self.student.variables().map(|(_, weight)| weight.elem_count()).collect();
        let shards = Shards::new(self.collective, &sizes);
        let (moments, average) = (self.parameters.moments, self.average());
        let optimiser =
            Optimiser::sharded(self.student.variables(), moments, &average, |index| shards.owns(index))?;
        let mut batches = self.batches()?;
        let state = self.begin(&optimiser.held(&shards), &mut batches)?;
        batches.paths = state.measured.features.iter().map(|(path, _)| path.clone()).collect();
        let weights = TermWeights::new(self.parameters, &state.measured);
        let mut history = match self.collective.rank() {
            0 => Some(History::open(self.checkpoint, &state.history)?),
            _ => None,
        };
        let order = Order::new(self.data.rows());
        let measured = state.measured;
        let mut student = Student { training: self, batches, measured, weights, optimiser, shards, order };
        let mut saved = Saved::new(state.step, Instant::now());
        let mut pace = Pace::new(state.step);
        self.progress.position(state.step);
        for step in state.step..steps {
            let (stop, due) = self.agree(self.cadence.is_due(step, &saved))?;
            if stop || due {
                student.save(step, &mut history, &mut saved)?;
            }
            if stop {
                return Err(Interrupted.into());
            }
            let line = student.step(step)?;
            if let Some(history) = history.as_mut().filter(|_| self.writes_line(step)) {
                history.push(&line)?;
            }
            let done = step + 1;
            self.progress.position(done);
            if let Some(rate) = pace.rate(done) {
                self.progress.note(&format!("loss {:.4} ({rate:.1} steps/s)", line.total));
            }
        }
        student.save(steps, &mut history, &mut saved)?;
        let all =
            self.student.weights().iter().map(|(name, weight)| (name.clone(), weight.as_detached_tensor()));
        let mut weights: BTreeMap<String, Tensor> = all.collect();
        weights.extend(student.optimiser.result(&student.shards)?);
        Ok(Distilled { weights, history: self.checkpoint.join(HISTORY_FILE) })
    }

    /// The state of the checkpoint, which fills the tensors, or that of the beginning.
    fn begin(&self, tensors: &[Held], batches: &mut Batches<'_>) -> Result<TrainingState, DistillError> {
        match checkpoint::load(self.checkpoint, tensors, self.collective, self.progress)? {
            Some(state) => {
                self.progress.resumed(state.step);
                Ok(state)
            }
            None => Ok(TrainingState::new(0, self.measure(batches)?, Mark::default())),
        }
    }

    /// Whether all ranks stop here, because one was asked to; and whether they write a checkpoint, as rank 0 decides.
    fn agree(&self, due: bool) -> Result<(bool, bool), DistillError> {
        let due = due && self.collective.rank() == 0;
        let mut wishes = [self.interrupt.asked(), due].map(|wish| f64::from(u8::from(wish)));
        self.collective.sum(&mut wishes)?;
        Ok((wishes[0] > 0.0, wishes[1] > 0.0))
    }

    /// The pieces of a batch that this rank trains with.
    fn own_pieces(&self) -> Result<Range<usize>, DistillError> {
        let (rank, size) = (self.collective.rank(), self.collective.size());
        let pieces = self.parameters.pieces(size)?;
        Ok(rank * pieces..(rank + 1) * pieces)
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
            levels: self.student.plain().config().levels.len(),
        })
    }

    /// The weights of the terms, measured on the first batches with the student before training.
    fn measure(&self, batches: &mut Batches<'_>) -> Result<Measured, DistillError> {
        let mut order = Order::new(self.data.rows());
        let own = self.own_pieces()?;
        let first = batches.piece(0, own.start, &mut order)?;
        let paths = common_paths(&first.input, self.student.plain(), self.teacher, self.parameters.features)?;
        if paths.is_empty() && self.parameters.feature_weight.get() > 0.0 {
            let reason = "they have no feature map in common".to_owned();
            return Err(DistillError::Mismatch { reason });
        }
        batches.paths = paths;
        // The mean squares of the teacher's maps, and all terms.
        let (mut squares, mut plain) = (vec![0.0; batches.paths.len()], vec![0.0; 2 + batches.paths.len()]);
        for step in 0..u64::from(self.parameters.normalisation_batches) {
            // There is no checkpoint yet: a later run measures again.
            if self.collective.any(self.interrupt.asked())? {
                return Err(Interrupted.into());
            }
            for piece in own.clone() {
                let batch = batches.piece(step, piece, &mut order)?;
                for (sum, map) in squares.iter_mut().zip(&batch.teacher.features) {
                    *sum += f64::from(losses::mean_square(map)?.to_scalar::<f32>()?);
                }
                let terms = batch.terms(self.student.plain(), &batches.paths)?.to_vec1::<f32>()?;
                for (sum, term) in plain.iter_mut().zip(terms) {
                    *sum += f64::from(term);
                }
            }
        }
        self.collective.sum(&mut squares)?;
        self.collective.sum(&mut plain)?;
        let pieces = (self.parameters.normalisation_batches.get() * batches.pieces) as f64;
        squares.iter_mut().chain(&mut plain).for_each(|sum| *sum /= pieces);
        if let Some(index) = plain.iter().position(|loss| !loss.is_finite()) {
            return Err(self.not_finite(0, term(index, &batches.paths), plain[index] as f32));
        }
        if let Some(index) = squares.iter().position(|square| !square.is_finite()) {
            let map = format!("mean square of the teacher's {}", batches.paths[index]);
            return Err(self.not_finite(0, map, squares[index] as f32));
        }
        Ok(Measured::new(self.parameters.normalisation, &batches.paths, &squares, &plain))
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
    measured: Measured,
    weights: TermWeights,
    optimiser: Optimiser,
    /// Who owns which of the optimiser's tensors.
    shards: Shards<'a>,
    order: Order,
}

impl Student<'_> {
    /// One update; nothing is changed if a term is not finite.
    fn step(&mut self, step: u64) -> Result<HistoryLine, DistillError> {
        let (training, parameters) = (self.training, self.training.parameters);
        let pieces = self.batches.pieces;
        let shares = self.weights.divided(pieces);
        let mut terms = vec![0f32; shares.len()];
        let mut gradients = Gradients::default();
        let asked = parameters.gradient_norms_every.is_some_and(|every| step.is_multiple_of(every.into()));
        // Where no line is written, nobody would see them.
        let wants_norms = asked && training.writes_line(step);
        let mut by_kind: [Gradients; 3] = Default::default();
        for piece in training.own_pieces()? {
            let batch = self.batches.piece(step, piece, &mut self.order)?;
            let differentiate = |weights: &[f32], into: &mut Gradients| {
                let (student, paths) = (training.student, &self.batches.paths);
                batch.differentiate(student, paths, training.checkpointing, weights, into)
            };
            let measured = differentiate(&shares, &mut gradients)?;
            for (sum, value) in terms.iter_mut().zip(measured) {
                *sum += value / pieces as f32;
            }
            for (kind, into) in by_kind.iter_mut().enumerate().filter(|_| wants_norms) {
                differentiate(&only(kind, &shares), into)?;
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

    /// Writes a checkpoint unless the last one is of this step. The history is written first: a checkpoint may never
    /// be ahead of it.
    fn save(&self, step: u64, history: &mut Option<History>, saved: &mut Saved) -> Result<(), DistillError> {
        if saved.step == step && step > 0 {
            return Ok(());
        }
        let begun = Instant::now();
        let mark = history.as_mut().map(History::sync).transpose()?.unwrap_or_default();
        checkpoint::save(
            self.training.checkpoint,
            &TrainingState::new(step, self.measured.clone(), mark),
            &self.optimiser.held(&self.shards),
            self.training.collective,
        )?;
        *saved = Saved::new(step, begun);
        Ok(())
    }
}

/// The name of the term of this index, given the paths of the feature maps.
fn term(index: usize, paths: &[String]) -> String {
    match index {
        0 => "task loss".to_owned(),
        1 => "output loss".to_owned(),
        _ => format!("feature loss of {}", paths[index - 2]),
    }
}
