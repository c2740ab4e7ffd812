//! The effects of removing sets of units at once.

use std::collections::BTreeSet;
use std::ops::Range;

use super::batches::{in_batches, walk_in_chunks};
use super::checkpoint::Sums;
use super::context::ScoringContext;
use super::effects::{Effects, Losses};
use super::error::ScoreError;
use super::predictions;
use super::walk::Variant;
use crate::base::UnitId;
use crate::data::Calibration;
use crate::model::unet::UNet;

const JOINT: &str = "joint";

/// The measured joint loss `E mean((e_R - e)^2)` of each set `R` of units. Fails if one is not finite.
pub fn joint_losses(
    unet: &UNet,
    points: &Calibration,
    sets: &[BTreeSet<UnitId>],
    context: &ScoringContext<'_>,
) -> Result<Vec<f64>, ScoreError> {
    let losses = joint("joint", unet, points, sets, context, |places, batch, variants| {
        let mut losses = Losses::new(context.weights_of(&places));
        walk_in_chunks(unet, batch, variants, context, &mut losses)?;
        Ok(losses.sums)
    })?;
    check_finite(sets, losses.iter().copied(), || predictions::check(unet, points, context.limits.points))?;
    Ok(losses)
}

/// The products `E mean(d_R d_S)` of the effects of each pair of sets of units, row by row; the diagonal holds their joint
/// losses. Fails if one of these is not finite.
pub fn joint_products(
    unet: &UNet,
    points: &Calibration,
    sets: &[BTreeSet<UnitId>],
    context: &ScoringContext<'_>,
) -> Result<Vec<f64>, ScoreError> {
    let products = joint("products", unet, points, sets, context, |places, batch, variants| {
        let mut effects = Effects::new(sets.len());
        walk_in_chunks(unet, batch, variants, context, &mut effects)?;
        Ok(effects.gram(batch.len(), context.weights_of(&places)))
    })?;
    let losses = products.iter().step_by(sets.len() + 1).copied();
    check_finite(sets, losses, || predictions::check(unet, points, context.limits.points))?;
    Ok(products)
}

/// The means over all points of `measure`, which sums over a batch for the U-Net without each of several sets of units.
fn joint(
    name: &str,
    unet: &UNet,
    points: &Calibration,
    sets: &[BTreeSet<UnitId>],
    context: &ScoringContext<'_>,
    measure: impl Fn(Range<usize>, &Calibration, &[Variant<'_>]) -> Result<Vec<f64>, ScoreError>,
) -> Result<Vec<f64>, ScoreError> {
    let variants: Vec<_> =
        sets.iter().map(|set| Variant::without_all(unet, set)).collect::<Result<_, _>>()?;
    let what = format!("{sets:?} {}", context.limits.points);
    means(name, unet, points, &what, context, |places, batch| measure(places, batch, &variants))
}

/// The means over all points of `measure`, which sums over a batch. `what` describes the work completely.
fn means(
    name: &str,
    unet: &UNet,
    points: &Calibration,
    what: &str,
    context: &ScoringContext<'_>,
    measure: impl Fn(Range<usize>, &Calibration) -> Result<Vec<f64>, ScoreError>,
) -> Result<Vec<f64>, ScoreError> {
    let path = Sums::path(context.checkpoint, name, what);
    let sums = in_batches(unet, points, context, &path, |places, batch| {
        Ok(vec![(JOINT.to_owned(), measure(places, batch)?)])
    })?;
    Ok(sums.means(JOINT))
}

/// The output loss of each variant, which the caller checks. `what` describes them completely.
pub(super) fn variant_losses(
    name: &str,
    unet: &UNet,
    points: &Calibration,
    variants: &[Variant<'_>],
    what: &str,
    context: &ScoringContext<'_>,
) -> Result<Vec<f64>, ScoreError> {
    means(name, unet, points, what, context, |places, batch| {
        let mut losses = Losses::new(context.weights_of(&places));
        walk_in_chunks(unet, batch, variants, context, &mut losses)?;
        Ok(losses.sums)
    })
}

/// `whole` fails if the U-Net with all its units is to blame.
fn check_finite(
    sets: &[BTreeSet<UnitId>],
    losses: impl Iterator<Item = f64>,
    whole: impl FnOnce() -> Result<(), ScoreError>,
) -> Result<(), ScoreError> {
    match sets.iter().zip(losses).find(|(_, loss)| !loss.is_finite()) {
        Some((set, value)) => {
            whole()?;
            Err(ScoreError::JointNotFinite { units: set.len(), value })
        }
        None => Ok(()),
    }
}
