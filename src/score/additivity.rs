//! Whether losses add: the measured joint losses of random sets of units against what each criterion predicts.
//!
//! Zhang et al. 2024 (LAPTOP-Diff) rest one-shot selection on additivity. It is measured on every model and never assumed.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;

use super::agreement::{Additivity, GRAM, MeasuredSet};
use super::context::ScoringContext;
use super::error::ScoreError;
use super::joint::joint_losses;
use super::scores::Scores;
use crate::backend::Random;
use crate::base::UnitId;
use crate::data::Calibration;
use crate::model::network::PruneError;
use crate::model::unet::UNet;

/// The shares of the removable parameters that the random sets reach in turn: from sets whose losses surely add to sets
/// that leave little of the model.
const RATIOS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];

/// Measures `count` random sets, which hold 0.1 to 0.7 of the removable parameters in turn, and compares them with the
/// predictions of `scores`.
pub fn measure(
    unet: &UNet,
    points: &Calibration,
    scores: &Scores,
    count: usize,
    random: &Random,
    context: &ScoringContext<'_>,
) -> Result<Additivity, ScoreError> {
    let sets: Vec<_> =
        (0..count).map(|index| draw(unet, index, random)).collect::<Result<_, PruneError>>()?;
    let losses = joint_losses(unet, points, &sets, context)?;
    let measured = sets.into_iter().zip(losses).map(|(set, joint)| MeasuredSet {
        ratio: scores.parameters(&set) as f64 / unet.parameters() as f64,
        joint,
        predicted: predictions(scores, &set),
        removed: set.into_iter().collect(),
    });
    Ok(Additivity::of(measured.collect()))
}

/// The predictions for a set: the sum of each criterion's scores, and that of the Gram matrix.
fn predictions(scores: &Scores, set: &BTreeSet<UnitId>) -> BTreeMap<String, f64> {
    let sums = scores.criteria.iter().filter_map(|name| Some((name.clone(), scores.additive(set, name)?)));
    let gram = scores.gram.iter().map(|gram| (GRAM.to_owned(), gram.joint(set)));
    sums.chain(gram).collect()
}

/// Takes units in random order until the ratio is reached. A Transformer2D that loses all its blocks is removed whole.
fn draw(unet: &UNet, index: usize, random: &Random) -> Result<BTreeSet<UnitId>, PruneError> {
    let parents: BTreeSet<_> = unet.units().iter().filter_map(|unit| unit.parent.as_ref()).collect();
    let mut leaves: Vec<_> = unet.units().iter().filter(|unit| !parents.contains(&unit.id)).collect();
    let available: u64 = leaves.iter().map(|unit| unit.parameters).sum();
    let needed = RATIOS[index % RATIOS.len()] * available as f64;
    leaves.shuffle(&mut random.stream("additivity", index as u64));
    let mut removed = 0.0;
    let set = leaves.iter().take_while(|unit| {
        let more = removed < needed;
        removed += unit.parameters as f64;
        more
    });
    let set = set.map(|unit| unit.id.clone()).collect();
    let before = &unet.config().removed_units;
    Ok(unet.config().prune(&set)?.removed_units.difference(before).cloned().collect())
}
