//! A retraining: what it needs, and what follows from that.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::batches::Batches;
use super::diary::{Cadence, Desk};
use super::easel::Easel;
use super::error::DistillError;
use super::order::Order;
use super::parameters::DistillParameters;
use crate::backend::Random;
use crate::base::{Interrupt, Interrupted, Progress};
use crate::data::Latents;
use crate::model::unet::UNet;
use crate::sample::NoiseSchedule;
use crate::train::collective::Collective;
use crate::train::watch::Watcher;
use crate::train::{ActivationCheckpointing, Average, Trainable};

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
    /// What one rank did alone: if it failed, all ranks end here. The others have no error of their own, and leave as they
    /// do when asked to stop.
    pub(super) fn together(&self, alone: Result<(), DistillError>) -> Result<(), DistillError> {
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

    pub(super) fn desk(&self) -> Desk<'_> {
        Desk {
            parameters: self.parameters,
            folder: self.checkpoint,
            cadence: self.cadence,
            watcher: self.watcher,
            progress: self.progress,
        }
    }

    pub(super) fn average(&self) -> Average {
        match (self.parameters.ema_decay.get() > 0.0, self.parameters.ema_on_host) {
            (false, _) => Average::None,
            (true, true) => Average::On(Device::Cpu),
            (true, false) => Average::On(self.device.clone()),
        }
    }

    pub(super) fn batches(&self) -> Result<Batches<'_>, DistillError> {
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

    pub(super) fn writes_line(&self, step: u64) -> bool {
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
