//! The student of a retraining: its steps, validations and checkpoints.
//!
//! A step on a GPU that trains alone is queued without waiting for anything. Its losses and the norm of its gradients are
//! sent to the host, and read once the next step is queued, or before anything that depends on them. If the norm is not
//! finite, the update has changed nothing. On a CPU, and where several ranks train, both are known before the update.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::batches::{Batches, TrainingBatch};
use super::diary::Diary;
use super::distillation::Distillation;
use super::draws::Ahead;
use super::error::DistillError;
use super::history::{FeatureLoss, HistoryLine};
use super::order::Order;
use super::term_weights::{ByKind, Measured, TermWeights, only, term};
use crate::nn::Later;
use crate::nn::gradients::{Clip, Gradients};
use crate::train::{Optimiser, Shards, serve};

/// The student with everything that an update reads and changes.
pub(super) struct Student<'a> {
    pub(super) training: &'a Distillation<'a>,
    pub(super) batches: Batches<'a>,
    pub(super) ahead: Ahead,
    pub(super) measured: Measured,
    pub(super) weights: TermWeights,
    pub(super) optimiser: Optimiser,
    /// Who owns which of the optimiser's tensors.
    pub(super) shards: Shards<'a>,
    pub(super) order: Order,
    /// The rows that losses are measured on.
    pub(super) held_out: Vec<usize>,
    /// The last step, if its results are not known yet.
    pub(super) pending: Option<Queued>,
}

/// A step whose results are on their way to the host.
pub(super) struct Queued {
    step: u64,
    /// Those of each piece of the batch.
    terms: Vec<Later>,
    /// The norm of the gradients, which is the first number, after those of each kind if they are asked for.
    norms: Vec<Later>,
}

/// An error with what is known of the last checkpoint.
fn explained(error: DistillError, diary: &Option<Diary<'_>>) -> DistillError {
    match diary {
        Some(diary) => diary.explain(error),
        None => error,
    }
}

impl Student<'_> {
    /// One update, which changes nothing if the norm of the gradients is not finite.
    pub(super) fn step(&mut self, step: u64, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        let (gradients, clip, queued) = self.queue(step)?;
        let update = self.training.parameters.update(step);
        match clip {
            // It costs nothing to know before the update.
            Clip::Known { .. } => {
                let line = self.line(queued).map_err(|error| explained(error, diary))?;
                self.optimiser.update(&gradients, &clip, &update)?;
                self.shards.share(self.optimiser.parameters())?;
                self.take(line, diary)
            }
            Clip::OnCard(_) => {
                self.optimiser.update(&gradients, &clip, &update)?;
                drop(gradients);
                self.settle(diary)?;
                self.pending = Some(queued);
                Ok(())
            }
        }
    }

    /// Takes the results of the last step, if they are not known yet. Waits for it.
    pub(super) fn settle(&mut self, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        let Some(queued) = self.pending.take() else { return Ok(()) };
        let line = self.line(queued).map_err(|error| explained(error, diary))?;
        self.take(line, diary)
    }

    fn take(&self, line: HistoryLine, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        self.training.together(diary.as_mut().map_or(Ok(()), |diary| diary.line(line)))
    }

    /// Writes a checkpoint if one is due after so many steps. There is none if the result of the last one is suspicious.
    pub(super) fn save_if_due(
        &mut self,
        done: u64,
        diary: &mut Option<Diary<'_>>,
    ) -> Result<(), DistillError> {
        if self.is_due(done, diary)? {
            self.settle(diary)?;
            if self.is_due(done, diary)? {
                self.save(done, diary)?;
            }
        }
        Ok(())
    }

    /// Whether a checkpoint is due after so many steps, as far as their results are known.
    fn is_due(&self, done: u64, diary: &Option<Diary<'_>>) -> Result<bool, DistillError> {
        Ok(self.training.collective.any(diary.as_ref().is_some_and(|diary| diary.is_due(done)))?)
    }

    /// The forward and backward passes of a step, with the norm of the gradients.
    fn queue(&mut self, step: u64) -> Result<(Gradients, Clip, Queued), DistillError> {
        let (training, parameters) = (self.training, self.training.parameters);
        let shares = self.weights.divided(self.batches.pieces);
        let mut terms = Vec::new();
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
            terms.push(Later::send(&differentiate(&shares, &mut gradients)?)?);
            for (kind, into) in by_kind.iter_mut().enumerate().filter(|_| wants_norms) {
                differentiate(&only(kind, &shares), into)?;
            }
        }
        let clip = |gradients: &mut Gradients| -> Result<Clip, DistillError> {
            self.shards.reduce(gradients)?;
            Ok(self.shards.clip(gradients, parameters.gradient_clip.get())?)
        };
        let mut norms = Vec::new();
        for gradients in by_kind.iter_mut().filter(|_| wants_norms) {
            norms.push(clip(gradients)?.norm()?);
        }
        let clip = clip(&mut gradients)?;
        norms.push(clip.norm()?);
        Ok((gradients, clip, Queued { step, terms, norms }))
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

    /// The results of a step, if they are finite.
    fn line(&self, Queued { step, terms, norms }: Queued) -> Result<HistoryLine, DistillError> {
        let mut own = vec![0f32; 2 + self.batches.paths.len()];
        for piece in terms {
            for (sum, value) in own.iter_mut().zip(piece.read()?) {
                *sum += value / self.batches.pieces as f32;
            }
        }
        let terms = self.mean_of_ranks(step, &own)?;
        let norms =
            norms.into_iter().map(|norm| Ok(norm.read()?[0])).collect::<Result<Vec<f32>, DistillError>>()?;
        let (gradient_norm, gradient_norms) = match norms[..] {
            [task, output, features, all] => (all, Some(ByKind { task, output, features })),
            _ => (norms[0], None),
        };
        if !gradient_norm.is_finite() {
            return Err(self.training.not_finite(step, "gradient norm".to_owned(), gradient_norm));
        }
        let maps = self.measured.features.iter().zip(&terms[2..]);
        let features = maps
            .map(|((path, weight), plain)| {
                (path.clone(), FeatureLoss { plain: *plain, weighted: weight * plain })
            })
            .collect();
        Ok(HistoryLine {
            step,
            task: terms[0],
            output: terms[1],
            features,
            weighted: self.weights.weighted(&terms),
            total: self.weights.total(&terms),
            gradient_norm,
            gradient_norms,
            learning_rate: self.training.parameters.learning_rate_at(step),
        })
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

    /// Measures and draws what is asked for after so many steps, with the weights that the training would end with now.
    pub(super) fn validate(&mut self, done: u64, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        let training = self.training;
        let steps = training.parameters.steps.into();
        let Some(_) = training.parameters.validation.as_ref().filter(|asked| asked.is_due(done, steps))
        else {
            return Ok(());
        };
        self.settle(diary)?;
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
    pub(super) fn result(&self) -> Result<BTreeMap<String, Tensor>, DistillError> {
        let all = self.training.student.weights().iter();
        let mut weights: BTreeMap<String, Tensor> =
            all.map(|(name, weight)| (name.clone(), weight.as_detached_tensor())).collect();
        weights.extend(self.optimiser.result(&self.shards)?);
        Ok(weights)
    }

    /// Writes a checkpoint, on rank 0 with the tensors of all ranks.
    pub(super) fn save(&self, step: u64, diary: &mut Option<Diary<'_>>) -> Result<(), DistillError> {
        let (held, collective) = (self.optimiser.held(&self.shards), self.training.collective);
        match diary {
            Some(diary) => diary.save(step, &self.measured, &held, collective),
            None => Ok(serve(collective, &held)?),
        }
    }
}
