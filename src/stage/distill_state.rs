//! The state at the end of a training, kept as an intermediate artefact: a run with more steps goes on from it, and ends
//! with the same bytes as one that did all steps at once.

use std::fs;
use std::path::Path;

use super::interface::Earlier;
use super::{Context, StageError};
use crate::base::manifest::TRAINING_STATE;
use crate::base::{FileError, Manifest, copies, kept, units};
use crate::distill::history::HISTORY_FILE;
use crate::distill::validation::{self, PICTURES, VALIDATION_FILE};
use crate::distill::{self, DistillParameters};

/// The number of steps in the manifest of a state.
const STEPS: &str = "steps";

/// The state that a training ends with, and whether others lead to it.
pub(super) fn earlier(parameters: &DistillParameters, manifest: &Manifest) -> Earlier {
    let mut state = manifest.part(|_| true);
    state.field(TRAINING_STATE, "end of the training");
    Earlier { state, name: STEPS, wanted: parameters.steps.into(), obstacle: parameters.depends_on_steps() }
}

/// Puts the state of an earlier run with the most steps up to those wanted in the place of the checkpoint, unless the
/// checkpoint is further. An earlier run that did all of them has only lost its artefact.
pub(super) fn take(parameters: &DistillParameters, context: &Context<'_>) -> Result<(), StageError> {
    let Earlier { state, name, wanted, obstacle } = earlier(parameters, context.manifest);
    if obstacle.is_some() {
        return Ok(());
    }
    let states = context.intermediates.alike(&state, name)?.into_iter();
    let usable = states.filter_map(|(steps, folder)| Some((steps.parse().ok()?, folder)));
    let best = usable.filter(|(steps, _): &(u64, _)| *steps <= wanted).max_by_key(|(steps, _)| *steps);
    let Some((steps, folder)) = best else { return Ok(()) };
    if distill::steps(context.checkpoint)?.first().is_some_and(|own| *own >= steps) {
        return Ok(());
    }
    copy(&folder, context.checkpoint, parameters, |from, to| {
        kept::write(to, |to| copies::copy(from, to).map_err(FileError::at(to)))
    })?;
    // The records of these steps are in place before the checkpoint that fits them.
    let name = distill::checkpoint_name(steps);
    let (from, to) = (folder.join(&name), context.checkpoint.join(&name));
    kept::write(&to, |to| copies::link(&from, to).map_err(FileError::at(to)))?;
    context.progress.note(&format!("goes on from the state of an earlier run after {steps} steps"));
    Ok(())
}

/// Keeps the state of a training that is done. That it cannot be kept ends nothing.
pub(super) fn keep(parameters: &DistillParameters, context: &Context<'_>) -> Result<(), StageError> {
    let Earlier { state, wanted, obstacle, .. } = earlier(parameters, context.manifest);
    if obstacle.is_some() || !context.training.keep_state {
        return Ok(());
    }
    let name = distill::checkpoint_name(wanted);
    let from = context.checkpoint.join(&name);
    let kept = context.intermediates.intermediate(&state, &|output, _| {
        copy(context.checkpoint, output, parameters, |from, to| {
            copies::copy(from, to).map_err(FileError::at(to))
        })?;
        copies::link(&from, &output.join(&name)).map_err(StageError::file(&from))
    });
    match kept {
        Err(error @ StageError::Interrupted(_)) => return Err(error),
        Err(error) => context.progress.note(&format!("the training state is not kept: {error}")),
        Ok(folder) => {
            let bytes = fs::metadata(folder.join(&name)).map_or(0, |file| file.len());
            let bytes = units::bytes(bytes);
            context.progress.note(&format!(
                "the training state ({bytes}) is kept in the cache: more steps can go on from it; the setting \
                 `keep-training-state: false` saves the space"
            ));
        }
    }
    Ok(())
}

/// Copies the records of a training, and puts the pictures that a training of any length draws.
fn copy(
    from: &Path,
    to: &Path,
    parameters: &DistillParameters,
    put: impl Fn(&Path, &Path) -> Result<(), FileError>,
) -> Result<(), StageError> {
    for name in [HISTORY_FILE, VALIDATION_FILE] {
        let target = to.join(name);
        copies::remove(&target)
            .and_then(|()| copies::copy(&from.join(name), &target))
            .map_err(StageError::file(&target))?;
    }
    let Some(asked) = &parameters.validation else { return Ok(()) };
    let drawn = validation::drawn(from).map_err(StageError::file(from))?;
    for picture in drawn.iter().filter(|picture| picture.step.is_multiple_of(asked.every.into())) {
        let target = validation::picture_path(to, picture.step, picture.prompt);
        let folder = to.join(PICTURES);
        fs::create_dir_all(&folder)
            .and_then(|()| copies::remove(&target))
            .map_err(StageError::file(&folder))?;
        put(&picture.path, &target)?;
    }
    Ok(())
}
