//! A retraining as every rank does it: from folders to trained weights. Rank 0 sends the task to the others.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::model::Model;
use super::{Bench, StageError};
use crate::backend::Random;
use crate::data::Latents;
use crate::distill::{DistillError, DistillParameters, Distillation, Distilled};
use crate::model::UNet;
use crate::sample::NoiseSchedule;
use crate::train::{ActivationCheckpointing, Trainable};

/// What a rank needs to train along. The folders lie on a file system that all ranks share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DistillTask {
    /// Paths need not be UTF-8.
    pub(super) teacher: OsString,
    pub(super) student: OsString,
    pub(super) data: OsString,
    /// The texts that random conditioning draws from, if not the captions of the data.
    pub(super) texts: Option<OsString>,
    pub(super) checkpoint: OsString,
    pub(super) training: DistillParameters,
    /// As rank 0 chose it, so that all ranks compute alike.
    pub(super) checkpointing: ActivationCheckpointing,
    /// Whether the teacher's weights stay in memory.
    pub(super) holds_teacher: bool,
    pub(super) random: Random,
}

impl DistillTask {
    /// Trains, together with the other ranks. The inner error is one that all ranks have at the same step; where only this
    /// one fails, the others learn why.
    pub(super) fn train(&self, bench: &Bench<'_>) -> Result<Result<Distilled, DistillError>, StageError> {
        let ended = self.attempt(bench).and_then(|ended| match ended {
            Err(error) if !error.is_shared() => Err(error.into()),
            ended => Ok(ended),
        });
        ended.inspect_err(|error| bench.ranks.fail(&error.line()))
    }

    fn attempt(&self, bench: &Bench<'_>) -> Result<Result<Distilled, DistillError>, StageError> {
        let teacher = Model::at(self.teacher.as_ref())?;
        let student = Model::at(self.student.as_ref())?;
        let schedule = NoiseSchedule::from_config(&teacher.directory.scheduler_config()?)?;
        let frozen = |name: &str| self.training.freezes(name);
        let student = Trainable::open(&student.directory, frozen, teacher.dtype, bench.device)?;
        let weights = teacher.directory.unet_weights()?;
        let config = teacher.directory.unet_config()?;
        let data = Latents::open(self.data.as_ref())?;
        let data = match &self.texts {
            Some(texts) => data.with_texts(texts.as_ref(), &config)?,
            None => data,
        };
        let teacher = UNet::load_held(config, &weights, teacher.dtype, bench.device, self.holds_teacher)?;
        let distillation = Distillation {
            teacher: &teacher,
            student: &student,
            checkpointing: self.checkpointing,
            schedule: &schedule,
            data: &data,
            parameters: &self.training,
            device: bench.device,
            random: &self.random,
            checkpoint: self.checkpoint.as_ref(),
            cadence: bench.cadence,
            easel: bench.easel,
            watcher: bench.watcher,
            progress: bench.progress,
            interrupt: bench.interrupt,
            collective: bench.ranks,
        };
        Ok(distillation.run())
    }
}
