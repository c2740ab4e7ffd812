//! Who watches a training of this stage, and what is drawn for them.

use std::fs;
use std::path::Path;

use super::model::Model;
use super::{Context, Drawing, StageError};
use crate::base::{copies, kept};
use crate::distill::validation::{self, PICTURES, PROMPTS, VALIDATION_FILE};
use crate::distill::{Cadence, DistillParameters, Distilled, Easel};
use crate::train::watch::{TENSORBOARD, TensorBoard, Watchers};

/// When checkpoints are written.
pub(super) fn cadence(context: &Context<'_>) -> Cadence {
    let (settings, default) = (context.training, Cadence::default());
    let seconds = match (settings.checkpoint_every_minutes, settings.checkpoint_every_steps) {
        (Some(minutes), _) => 60.0 * minutes as f64,
        // Only as often as asked.
        (None, Some(_)) => f64::INFINITY,
        (None, None) => default.seconds,
    };
    Cadence { steps: settings.checkpoint_every_steps, seconds, keep: settings.keep_checkpoints }
}

/// The watchers that the settings ask for.
pub(super) fn watchers<'a>(context: &'a Context<'_>) -> Watchers<'a> {
    let (settings, seat) = (context.training, &context.seat);
    let mut watchers = Watchers::default();
    if settings.tensorboard {
        let folder = seat.folder.join(TENSORBOARD).join(seat.stage.as_str());
        watchers.0.push(Box::new(TensorBoard::new(&folder, context.progress)));
    }
    watchers
}

/// What draws the pictures of validations, if there are prompts.
pub(super) fn easel<'a>(
    parameters: &'a DistillParameters,
    student: &Model,
    context: &'a Context<'_>,
) -> Result<Option<Easel<'a>>, StageError> {
    let Some(asked) = parameters.validation.as_ref().filter(|asked| !asked.prompts.is_empty()) else {
        return Ok(None);
    };
    let drawing = Drawing { steps: asked.steps, guidance_scale: asked.guidance_scale, ..Drawing::default() };
    let (directory, dtype, device) = (&student.directory, student.dtype, context.device);
    let latent = drawing.latent(directory, 1, dtype, device)?;
    let encoder = drawing.encoder(directory, dtype, device)?;
    let (conditioning, unconditional) =
        drawing.texts(&encoder, &asked.prompts, context.progress, context.interrupt)?;
    Ok(Some(Easel {
        parameters: asked,
        vae: drawing.vae(directory, dtype, device)?,
        conditioning,
        unconditional,
        latent,
        sampler: drawing.sampler(),
        folder: context.checkpoint,
    }))
}

/// Puts what was validated beside the retrained model. A student that was retrained before has its own, which go.
pub(super) fn save(
    parameters: &DistillParameters,
    distilled: &Distilled,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let output = context.output;
    for old in [VALIDATION_FILE, PICTURES] {
        copies::remove(&output.join(old)).map_err(StageError::file(output))?;
    }
    let Some(asked) = &parameters.validation else { return Ok(()) };
    if asked.rows.get() > 0 {
        copies::copy(&distilled.validation, &output.join(VALIDATION_FILE))
            .map_err(StageError::file(output))?;
    }
    if !asked.prompts.is_empty() {
        pictures(asked.every.into(), parameters.steps.into(), context).map_err(StageError::file(output))?;
    }
    Ok(())
}

/// Copies the whole pictures of this training. One that was damaged is missing: the weights that drew it are gone.
fn pictures(every: u64, steps: u64, context: &Context<'_>) -> std::io::Result<()> {
    let (from, to) = (context.checkpoint, context.output);
    fs::create_dir_all(to.join(PICTURES))?;
    let name = Path::new(PICTURES).join(PROMPTS);
    copies::copy(&from.join(&name), &to.join(&name))?;
    for picture in validation::drawn(from)? {
        let is_asked = picture.step.is_multiple_of(every) || picture.step == steps;
        if is_asked && kept::is_whole(&picture.path, context.progress).map_err(|error| error.source)? {
            copies::copy(&picture.path, &validation::picture_path(to, picture.step, picture.prompt))?;
        }
    }
    Ok(())
}
