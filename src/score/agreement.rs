//! How well predictions agree with the measured joint losses of random sets of units.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::UnitId;
use crate::base::rank_correlation::{partial_spearman, pearson, spearman};

/// Losses are measured in f32: a sum of squares below this share of its scale is rounding.
pub const ROUNDING: f64 = 1e-12;
/// A line always fits two points.
const MINIMUM_SETS: usize = 3;

/// The name of the Gram matrix among the predictions, beside those of the criteria.
pub const GRAM: &str = "gram";

/// Measured sets, and how well each prediction agrees with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Additivity {
    /// The sets.
    pub sets: Vec<MeasuredSet>,
    /// The agreement of each prediction: by the criterion's name the sum of its scores, as [`GRAM`] `1' G 1`.
    pub agreement: BTreeMap<String, Agreement>,
}

/// One random set of units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredSet {
    /// Its units.
    pub removed: Vec<UnitId>,
    /// Its share of the U-Net's parameters.
    pub ratio: f64,
    /// The measured joint loss.
    pub joint: f64,
    /// The predictions, under the names of [`Additivity::agreement`].
    pub predicted: BTreeMap<String, f64>,
}

/// How well a prediction agrees with the measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Squared Pearson correlation: the share of the measured variance that a straight line through the predictions explains.
    pub r2: f64,
    /// Spearman's rank correlation: whether the order is right, which is all that a selection needs.
    pub spearman: f64,
    /// Slope of the least-squares line `measured = slope * predicted` through the origin; 1 means that losses add.
    pub slope: f64,
}

impl Additivity {
    /// Compares every prediction with the measured losses. All sets must have the same predictions.
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

    /// Spearman's correlation of a prediction and the joint losses that is left if all sets had the same number of parameters.
    pub fn spearman_at_equal_size(&self, name: &str) -> Option<f64> {
        let distinct = self.distinct();
        let predicted: Vec<f64> =
            distinct.iter().map(|set| set.predicted.get(name).copied()).collect::<Option<_>>()?;
        let of = |value: fn(&MeasuredSet) -> f64| distinct.iter().map(|set| value(set)).collect::<Vec<_>>();
        partial_spearman(&predicted, &of(|set| set.joint), &of(|set| set.ratio))
    }

    /// The distinct sets: of few units, the same set can be drawn twice.
    pub fn distinct(&self) -> Vec<&MeasuredSet> {
        let mut seen = BTreeSet::new();
        self.sets.iter().filter(|set| seen.insert(&set.removed)).collect()
    }
}

impl Agreement {
    /// Compares predictions with measurements in pairs. All zero if one of them varies only by rounding, or for fewer than three pairs.
    pub fn between(predicted: &[f64], measured: &[f64]) -> Self {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        if predicted.len() < MINIMUM_SETS || !varies(predicted) || !varies(measured) {
            return Self::default();
        }
        let square = dot(predicted, predicted);
        Self {
            r2: pearson(predicted, measured).powi(2),
            spearman: spearman(predicted, measured),
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
    fn rounding_and_repeated_sets_give_no_agreement() {
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
}
