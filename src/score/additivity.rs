//! Whether losses add: random sets of units, their measured joint loss, and what the surrogates said.
//!
//! Zhang et al. 2024 (LAPTOP-Diff) rest one-shot selection on additivity, so it is measured on every
//! model, never assumed.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::{ScoreError, Scores, Work, joint_losses};
use crate::backend::Random;
use crate::base::UnitId;
use crate::data::Calibration;
use crate::model::network::PruneError;
use crate::model::unet::UNet;

/// Shares of the parameters that can go which the random sets reach in turn: from where losses surely add to where a model is
/// mostly gone.
const RATIOS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];

/// A sum of squares below this share of what it could be is rounding: losses are measured in f32.
pub(crate) const ROUNDING: f64 = 1e-12;
/// Through two points there is always a line.
const LEAST_SETS: usize = 3;

/// What the prediction of the Gram matrix is called among those of the criteria.
pub const GRAM: &str = "gram";

/// The measurement: sets, and how well each surrogate did on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Additivity {
    /// The sets that were tried.
    pub sets: Vec<MeasuredSet>,
    /// How each prediction fared: by criterion the sum of its scores, and as [`GRAM`] `1' G 1`.
    pub agreement: BTreeMap<String, Agreement>,
}

/// One random set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredSet {
    /// Its units.
    pub removed: Vec<UnitId>,
    /// Parameters of the set over parameters of the U-Net.
    pub ratio: f64,
    /// The measured joint loss.
    pub joint: f64,
    /// The predictions, by the names of [`Additivity::agreement`].
    pub predicted: BTreeMap<String, f64>,
}

/// How a prediction agrees with what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Squared Pearson correlation: the share of the measured variance that a straight line through the predictions explains.
    pub r2: f64,
    /// Spearman's rank correlation: whether the order is right, which is all that selection needs.
    pub spearman: f64,
    /// Slope of the least-squares line `measured = slope * predicted` through the origin; 1 means that losses add.
    pub slope: f64,
}

impl Additivity {
    /// Compares every prediction with the measured losses. All sets have the same predictions.
    pub fn of(sets: Vec<MeasuredSet>) -> Self {
        let mut found = Self { sets, agreement: BTreeMap::new() };
        let distinct = found.distinct();
        let joint: Vec<_> = distinct.iter().map(|set| set.joint).collect();
        let names = distinct.first().into_iter().flat_map(|set| set.predicted.keys());
        let agreement = names.map(|name| {
            let predicted: Vec<_> = distinct.iter().map(|set| set.predicted[name]).collect();
            (name.clone(), Agreement::between(&predicted, &joint))
        });
        found.agreement = agreement.collect();
        found
    }

    /// The sets, each once: of few units the same can be drawn again.
    pub fn distinct(&self) -> Vec<&MeasuredSet> {
        let mut seen = BTreeSet::new();
        self.sets.iter().filter(|set| seen.insert(&set.removed)).collect()
    }
}

/// Measures `count` random sets, from 0.1 to 0.7 of what can go in turn, against what `scores` predict of them.
pub fn measure(
    unet: &UNet,
    points: &Calibration,
    scores: &Scores,
    count: usize,
    random: &Random,
    work: &Work<'_>,
) -> Result<Additivity, ScoreError> {
    let sets: Vec<_> =
        (0..count).map(|index| draw(unet, index, random)).collect::<Result<_, PruneError>>()?;
    let losses = joint_losses(unet, points, &sets, work)?;
    let measured = sets.into_iter().zip(losses).map(|(set, joint)| MeasuredSet {
        ratio: scores.parameters(&set) as f64 / unet.parameters() as f64,
        joint,
        predicted: predictions(scores, &set),
        removed: set.into_iter().collect(),
    });
    Ok(Additivity::of(measured.collect()))
}

/// What each criterion's sum and the Gram matrix say of a set.
fn predictions(scores: &Scores, set: &BTreeSet<UnitId>) -> BTreeMap<String, f64> {
    let sums = scores.criteria.iter().filter_map(|name| Some((name.clone(), scores.additive(set, name)?)));
    let gram = scores.gram.iter().map(|gram| (GRAM.to_owned(), gram.joint(set)));
    sums.chain(gram).collect()
}

/// Units in random order until the ratio is reached or nothing is left; a Transformer2D without blocks goes whole.
fn draw(unet: &UNet, index: usize, random: &Random) -> Result<BTreeSet<UnitId>, PruneError> {
    let parents: BTreeSet<_> = unet.units().iter().filter_map(|unit| unit.parent.as_ref()).collect();
    let mut leaves: Vec<_> = unet.units().iter().filter(|unit| !parents.contains(&unit.id)).collect();
    let available: u64 = leaves.iter().map(|unit| unit.parameters).sum();
    let needed = RATIOS[index % RATIOS.len()] * available as f64;
    leaves.shuffle(&mut random.stream("additivity", index as u64));
    let mut gone = 0.0;
    let set = leaves.iter().take_while(|unit| {
        let more = gone < needed;
        gone += unit.parameters as f64;
        more
    });
    let set = set.map(|unit| unit.id.clone()).collect();
    let before = &unet.config().removed_units;
    Ok(unet.config().prune(&set)?.removed_units.difference(before).cloned().collect())
}

impl Agreement {
    /// Compares predictions with measurements, pair by pair. Zero where nothing varies but by rounding, and of fewer than three.
    pub fn between(predicted: &[f64], measured: &[f64]) -> Self {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        if predicted.len() < LEAST_SETS || !varies(predicted) || !varies(measured) {
            return Self::default();
        }
        let square = dot(predicted, predicted);
        Self {
            r2: pearson(predicted, measured).powi(2),
            spearman: pearson(&ranks(predicted), &ranks(measured)),
            slope: if square > 0.0 { dot(predicted, measured) / square } else { 0.0 },
        }
    }
}

/// Whether values differ by more than rounding.
fn varies(values: &[f64]) -> bool {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let off: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    off > ROUNDING * values.iter().map(|value| value * value).sum::<f64>()
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// Ranks from zero; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let first = order.partition_point(|&other| values[other] < values[run[0]]);
        for &place in run {
            ranks[place] = first as f64 + (run.len() - 1) as f64 / 2.0;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_prediction_agrees_and_a_monotone_one_keeps_the_order() {
        let measured = [1.0, 2.0, 4.0, 8.0];
        let same = Agreement::between(&measured, &measured);
        assert_eq!((same.slope, same.spearman), (1.0, 1.0));
        assert!((same.r2 - 1.0).abs() < 1e-12);
        let squared = measured.map(|value| value * value);
        let bent = Agreement::between(&squared, &measured);
        assert_eq!(bent.spearman, 1.0);
        assert!(bent.r2 < 0.99 && bent.slope < 0.2);
    }

    #[test]
    fn what_varies_by_rounding_alone_or_is_drawn_again_agrees_with_nothing() {
        let rounded = [3.0, 3.0 + 1e-7, 3.0 - 1e-7, 3.0];
        assert_eq!(Agreement::between(&rounded, &rounded), Agreement::default());
        let set = |unit: &str, joint| MeasuredSet {
            removed: vec![unit.into()],
            ratio: 0.5,
            joint,
            predicted: [(GRAM.to_owned(), joint)].into(),
        };
        let of = |names: [&str; 4]| {
            Additivity::of(names.iter().zip(1..).map(|(name, at)| set(name, f64::from(at))).collect())
        };
        assert_eq!(of(["a", "b", "a", "b"]).agreement[GRAM], Agreement::default());
        assert!(of(["a", "b", "c", "b"]).agreement[GRAM].r2 > 0.99);
    }

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
    }
}
