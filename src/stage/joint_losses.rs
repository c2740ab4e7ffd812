//! Whether a selection was a good one: its joint loss and that of its baselines on held-out points.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Context, StageError};
use crate::base::UnitId;
use crate::data::Calibration;
use crate::metric::{Baseline, SELECTED};
use crate::model::unet::UNet;
use crate::score::{Limits, ScoringContext, joint_losses};
use crate::select::{SelectError, Selection};

/// Reads a selection. Fails unless it is a set of units, which has a joint loss.
pub(super) fn selection_of_units(folder: &Path) -> Result<Selection, StageError> {
    let selection = Selection::open(folder).map_err(StageError::file(folder))?;
    match selection.dropped_layers()? {
        Some(layout) => Err(StageError::pipeline(SelectError::NotUnits { layout: layout.name })),
        None => Ok(selection),
    }
}

/// The measured joint loss of the selection, then of each of its baselines.
pub(super) fn joint_losses_of(
    selection: Selection,
    points: &Calibration,
    teacher: &UNet,
    context: &Context<'_>,
) -> Result<Vec<Baseline>, StageError> {
    let own = (SELECTED.to_owned(), selection.removed(), selection.removed_parameters);
    let others = selection.baselines.into_iter();
    let others = others.map(|one| (one.name, one.removed.into_iter().collect(), one.removed_parameters));
    let all: Vec<(String, BTreeSet<UnitId>, u64)> = std::iter::once(own).chain(others).collect();
    let sets: Vec<_> = all.iter().map(|(_, removed, _)| removed.clone()).collect();
    let scoring = ScoringContext {
        limits: Limits::default(),
        weights: None,
        checkpoint: context.checkpoint,
        progress: context.progress,
        interrupt: context.interrupt,
    };
    let losses = joint_losses(teacher, points, &sets, &scoring)?;
    let baseline =
        |((name, _, removed_parameters), joint_loss)| Baseline { name, joint_loss, removed_parameters };
    Ok(all.into_iter().zip(losses).map(baseline).collect())
}
