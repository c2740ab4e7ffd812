//! The training loop, which can be stopped and resumed at every step.
//!
//! After a step only the optimiser's tensors remain, so a checkpoint holds those and the number of the step. On the
//! CPU a resumed run gives the same bytes as one that was never interrupted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::batches::Batches;
use super::checkpoint::{self, TrainingState};
use super::diary::{Cadence, Desk, Diary};
use super::easel::Easel;
use super::error::DistillError;
use super::feature_maps::common_paths;
use super::held_out::Division;
use super::history::{FeatureLoss, HistoryLine};
use super::losses;
use super::order::Order;
use super::parameters::DistillParameters;
use super::term_weights::{ByKind, Measured, TermWeights, only};
use crate::backend::{Random, threads};
use crate::base::{Interrupt, Progress};
use crate::data::Latents;
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::sample::NoiseSchedule;
use crate::train::watch::Watcher;
use crate::train::{ActivationCheckpointing, Average, Optimiser, Trainable};

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
        threads::run(|| self.train())
    }

    fn train(&self) -> Result<Distilled, DistillError> {
        let steps = u64::from(self.parameters.steps);
        self.progress.length(steps, "steps");
        self.parameters.check_freeze(self.student.weights().keys().map(String::as_str))?;
        let optimiser = Optimiser::new(self.student.variables(), self.parameters.moments, &self.average())?;
        let division = Division::new(self.parameters, self.data.rows(), self.random)?;
        let mut batches = self.batches()?;
        let state = match checkpoint::load(self.checkpoint, &optimiser.variables(), self.progress)? {
            Some(state) => {
                self.progress.resumed(state.step);
                state
            }
            None => TrainingState::first(self.measure(&mut batches, &division.trained)?),
        };
        let mut diary = Diary::open(self.desk(), &state)?;
        batches.paths = state.measured.features.iter().map(|(path, _)| path.clone()).collect();
        let weights = TermWeights::new(self.parameters, &state.measured);
        let Division { trained, held_out } = division;
        let (order, measured) = (self.order(&trained), state.measured);
        let mut student = Student { training: self, batches, measured, weights, optimiser, order, held_out };
        self.progress.position(state.step);
        for step in state.step..steps {
            if self.interrupt.asked() {
                if diary.is_sound() {
                    student.save(step, &mut diary)?;
                }
                self.interrupt.check()?;
            }
            student.validate(step, &mut diary)?;
            let line = student.step(step).map_err(|error| diary.explain(error))?;
            diary.line(line)?;
            if diary.is_due(step + 1) {
                student.save(step + 1, &mut diary)?;
            }
        }
        student.validate(steps, &mut diary)?;
        let (history, validation) = diary.finish()?;
        Ok(Distilled { weights: student.result(), history, validation })
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
            levels: self.student.plain().config().levels.len(),
        })
    }

    fn order(&self, rows: &[usize]) -> Order {
        Order::new(rows, &self.data.shapes(), self.parameters.batch_size.get())
    }

    /// The weights of the terms, measured on the first batches with the student before training.
    fn measure(&self, batches: &mut Batches<'_>, rows: &[usize]) -> Result<Measured, DistillError> {
        let mut order = self.order(rows);
        let first = batches.piece(0, 0, &mut order)?;
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
            self.interrupt.check()?;
            for piece in 0..self.parameters.gradient_accumulation.get() {
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
        let pieces = (self.parameters.normalisation_batches.get()
            * self.parameters.gradient_accumulation.get()) as f64;
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
        let last = "there is no checkpoint yet".to_owned();
        DistillError::NotFinite { step, steps, term, value, learning_rate, last }
    }
}

/// The student with everything that an update reads and changes.
struct Student<'a> {
    training: &'a Distillation<'a>,
    batches: Batches<'a>,
    measured: Measured,
    weights: TermWeights,
    optimiser: Optimiser,
    order: Order,
    /// The rows that losses are measured on.
    held_out: Vec<usize>,
}

impl Student<'_> {
    /// One update; nothing is changed if a term is not finite.
    fn step(&mut self, step: u64) -> Result<HistoryLine, DistillError> {
        let (training, parameters) = (self.training, self.training.parameters);
        let pieces = parameters.gradient_accumulation.get();
        let shares = self.weights.divided(pieces);
        let mut terms = vec![0f32; shares.len()];
        let mut gradients = Gradients::default();
        let asked = parameters.gradient_norms_every.is_some_and(|every| step.is_multiple_of(every.into()));
        // Where no line is written, nobody would see them.
        let wants_norms = asked && training.writes_line(step);
        let mut by_kind: [Gradients; 3] = Default::default();
        for piece in 0..pieces {
            let batch = self.batches.piece(step, piece, &mut self.order)?;
            let differentiate = |weights: &[f32], into: &mut Gradients| {
                let (student, paths) = (training.student, &self.batches.paths);
                batch.differentiate(student, paths, training.checkpointing, weights, into)
            };
            let measured = differentiate(&shares, &mut gradients)?;
            for (index, value) in measured.into_iter().enumerate() {
                if !value.is_finite() {
                    return Err(training.not_finite(step, term(index, &self.batches.paths), value));
                }
                terms[index] += value / pieces as f32;
            }
            for (kind, into) in by_kind.iter_mut().enumerate().filter(|_| wants_norms) {
                differentiate(&only(kind, &shares), into)?;
            }
        }
        let [task, output, features] = by_kind;
        let norm_of = |gradients: Gradients| Ok::<_, DistillError>(gradients.norm()? as f32);
        let norms = ByKind { task: norm_of(task)?, output: norm_of(output)?, features: norm_of(features)? };
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Err(training.not_finite(step, "gradient norm".to_owned(), norm as f32));
        }
        self.optimiser.update(&gradients, norm, &parameters.update(step))?;
        Ok(self.line(step, &terms, norm, wants_norms.then_some(norms)))
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
    fn validate(&self, done: u64, diary: &mut Diary<'_>) -> Result<(), DistillError> {
        let training = self.training;
        let steps = training.parameters.steps.into();
        let Some(_) = training.parameters.validation.as_ref().filter(|asked| asked.is_due(done, steps))
        else {
            return Ok(());
        };
        let unet = training.student.plain().on_weights(&self.result(), training.device)?;
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

    /// The weights that the training would end with now.
    fn result(&self) -> BTreeMap<String, Tensor> {
        let all = self.training.student.weights().iter();
        let mut weights: BTreeMap<String, Tensor> =
            all.map(|(name, weight)| (name.clone(), weight.as_detached_tensor())).collect();
        weights.extend(self.optimiser.result());
        weights
    }

    fn save(&self, step: u64, diary: &mut Diary<'_>) -> Result<(), DistillError> {
        diary.save(step, &self.measured, &self.optimiser.variables())
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
