//! Which steps of teacher and student correspond, and where the student can have linear maps.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ReconstructError;
use crate::base::UnitId;
use crate::model::network::{PruneError, TailKind};
use crate::model::unet::UNet;

/// For each step of the student, the place of the corresponding one in the teacher; for a linear map, the place after the
/// unit that it replaces. Equal paths are not enough: a published layout numbers the layers that it keeps anew.
pub(super) fn places(teacher: &UNet, student: &UNet) -> Result<Vec<usize>, ReconstructError> {
    let named = |path: &str| ReconstructError::Mismatch { path: path.to_owned() };
    let removed = &student.config().removed_units;
    let pruned =
        teacher.config().prune(removed).map_err(|PruneError::UnknownUnit { unit }| named(unit.as_str()))?;
    let pruned = pruned.with_maps(&student.config().linear_units).map_err(|unit| named(unit.as_str()))?;
    let expected = pruned.inventory();
    let mut rest = expected.paths();
    let own = student.inventory().paths();
    if let Some(other) = own.clone().find(|path| rest.next() != Some(path)).or_else(|| rest.next()) {
        return Err(named(other));
    }
    let there: BTreeMap<&str, usize> =
        teacher.inventory().paths().enumerate().map(|(place, path)| (path, place)).collect();
    let units = teacher.inventory().removable().iter();
    let after: BTreeMap<&str, usize> = units.map(|unit| (unit.id.as_str(), unit.steps.end)).collect();
    let place = |(step, path): (usize, &str)| {
        let is_map = student.inventory().tail(step).is_some_and(|tail| tail.kind == TailKind::Linear);
        let is_new = is_map && !teacher.config().linear_units.contains(path);
        let place = if is_new { after.get(path) } else { there.get(path) };
        place.copied().ok_or_else(|| named(path))
    };
    own.enumerate().map(place).collect()
}

/// The removed units that can have a linear map, one for each gap between two steps of the student: of neighbours that are
/// removed together the last one. After a learned shortcut there is no gap, because the shortcut is such a map itself.
pub(super) fn gaps(teacher: &UNet, student: &UNet) -> Result<BTreeSet<UnitId>, ReconstructError> {
    let places = places(teacher, student)?;
    let end = teacher.inventory().paths().len();
    let ends: BTreeSet<usize> = (0..places.len())
        .filter(|&step| {
            let tail = student.inventory().tail(step).map(|tail| tail.kind);
            !matches!(tail, Some(TailKind::Shortcut | TailKind::Linear))
        })
        .filter(|&step| places.get(step + 1).is_some_and(|next| places[step] + 1 < *next))
        .map(|step| places.get(step + 1).copied().unwrap_or(end))
        .collect();
    let removed = &student.config().removed_units;
    let units = teacher.inventory().removable().iter();
    let last = units.filter(|unit| removed.contains(&unit.id) && ends.contains(&unit.steps.end));
    Ok(last.map(|unit| unit.id.clone()).collect())
}
