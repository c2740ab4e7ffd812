//! What an evaluation reads of its files and of the teacher, for every model.

use super::model::Model;
use super::{Context, Drawing, StageError};
use crate::data::Calibration;
use crate::model::network::Conditioning;
use crate::model::vae::Autoencoder;
use crate::sample::NoiseSchedule;

/// The texts and the parts of the teacher that every model is measured with.
pub(super) struct Inputs {
    pub(super) prompts: Vec<String>,
    pub(super) captions: Vec<String>,
    pub(super) conditioning: Conditioning,
    pub(super) unconditional: Conditioning,
    pub(super) schedule: NoiseSchedule,
    pub(super) latent: [usize; 3],
    pub(super) vae: Autoencoder,
    pub(super) points: Option<Calibration>,
}

impl Inputs {
    pub(super) fn read(
        drawing: &Drawing,
        teacher: &Model,
        (prompts, captions): (Vec<String>, Vec<String>),
        points: Option<Calibration>,
        context: &Context<'_>,
    ) -> Result<Self, StageError> {
        let (directory, dtype, device) = (&teacher.directory, teacher.dtype, context.device);
        let encoder = drawing.encoder(directory, dtype, device)?;
        let (conditioning, unconditional) =
            drawing.texts(&encoder, &prompts, context.progress, context.interrupt)?;
        Ok(Self {
            conditioning,
            unconditional,
            schedule: NoiseSchedule::from_config(&directory.scheduler_config()?)?,
            latent: drawing.latent(directory, prompts.len(), dtype, device)?,
            vae: drawing.vae(directory, dtype, device)?,
            prompts,
            captions,
            points,
        })
    }
}
