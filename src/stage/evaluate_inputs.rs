//! What an evaluation reads of its files and of the teacher, for every model.

use std::path::{Path, PathBuf};

use super::model::Model;
use super::sources::reference_pictures;
use super::{Context, Drawing, StageError};
use crate::data::Calibration;
use crate::metric::{self, Metric, PromptsRecord};
use crate::model::network::Conditioning;
use crate::model::vae::Autoencoder;
use crate::sample::NoiseSchedule;

/// Fails if a metric needs more pictures than there are of each model, or in the folder of real ones.
pub(super) fn check_sizes(
    metrics: &[&'static dyn Metric],
    of_model: usize,
    reference: Option<&Path>,
) -> Result<(), StageError> {
    let real = reference.map(|folder| Ok::<_, StageError>(reference_pictures(folder)?.len())).transpose()?;
    let sizes = [Some((of_model, "of each model")), real.map(|count| (count, "of the reference"))];
    for (found, of) in sizes.into_iter().flatten() {
        let enough = metrics.iter().try_for_each(|metric| metric::too_few(*metric, found, of));
        enough.map_err(StageError::input)?;
    }
    Ok(())
}

/// Says that the prompts of a set were not compared with a digest, and which they have.
pub(super) fn note_unpinned(from: &PromptsRecord, context: &Context<'_>) {
    if let Some(set) = from.set.as_ref().filter(|_| !from.pinned) {
        let digest = &from.digest;
        context.progress.note(&format!(
            "the digest of `{set}` is not known here; the prompts have {digest}, which `digest:` in `prompts:` pins"
        ));
    }
}

/// The name of the folder of real pictures, as written, and its pictures.
pub(super) fn real_pictures(
    path: &Path,
    context: &Context<'_>,
) -> Result<(String, Vec<PathBuf>), StageError> {
    Ok((path.display().to_string(), reference_pictures(context.file("reference"))?))
}

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
