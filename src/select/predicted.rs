//! What a selection is predicted to cost, and how sure that is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Front, Interval, Problem, Solved};
use crate::base::UnitId;
use crate::score::GRAM;
use crate::score::OUTPUT_LOSS;
use crate::score::Scores;

/// The front in the file has one point for each half per cent of the U-Net; the exact front can have many thousands.
const FRONT_STEPS: u64 = 200;

/// Predictions of a selection's loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// What the solver was to make small.
    pub objective: f64,
    /// No selection of these budgets can have a smaller objective, up to a share of 1e-7 of it, to which searches are exact; where
    /// it equals the objective, the selection is proven optimal.
    pub bound: f64,
    /// How far the objective may lie above the optimum, as a share of the objective; nothing of an objective of zero that is not
    /// proven.
    pub gap: Option<f64>,
    /// Sub-problems that the solver looked at.
    pub nodes: usize,
    /// The sum of output losses, where they were scored or the Gram matrix is known.
    pub additive: Option<f64>,
    /// `1' G 1` over the removed units, where the Gram matrix is known.
    pub gram: Option<f64>,
    /// The joint loss to expect, by the criterion's sum and by `gram`: each as its own measurement on random sets corrects it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joint: BTreeMap<String, Interval>,
}

/// A point of the Pareto front.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// Parameters that go.
    pub removed_parameters: u64,
    /// Their share of the U-Net.
    pub ratio: f64,
    /// The least summed score at which so many can go.
    pub loss: f64,
}

impl Predicted {
    /// Of the units `removed`, with what the solver knows.
    pub(super) fn of(
        scores: &Scores,
        criterion: &str,
        problem: &Problem,
        removed: &BTreeSet<UnitId>,
        solved: &Solved,
    ) -> Self {
        let objective = problem.value(&problem.named(removed));
        let bound = solved.bound.unwrap_or(f64::MIN);
        let gram = scores.gram.as_ref().map(|gram| gram.joint(removed));
        let sum = scores.additive(removed, criterion).map(|sum| (criterion, sum));
        let predictions = sum.into_iter().chain(gram.map(|gram| (GRAM, gram)));
        let joint = scores.additivity.iter().flat_map(|additivity| {
            let interval =
                |(name, value): (&str, f64)| Some((name.to_owned(), Interval::of(additivity, name, value)?));
            predictions.clone().filter_map(interval)
        });
        Self {
            objective,
            bound,
            gap: gap(objective, bound),
            nodes: solved.nodes,
            additive: scores.additive(removed, OUTPUT_LOSS),
            gram,
            joint: joint.collect(),
        }
    }
}

fn gap(objective: f64, bound: f64) -> Option<f64> {
    if objective == bound || objective.abs().max(bound.abs()) < f64::EPSILON {
        return Some(0.0);
    }
    Some((objective - bound) / objective.abs()).filter(|gap| gap.is_finite())
}

/// The front at steps of the ratio.
pub(super) fn sampled(front: &Front, total: u64) -> Vec<FrontPoint> {
    let points: Vec<_> = front.points().collect();
    let mut places: Vec<_> =
        (0..=FRONT_STEPS).map_while(|step| front.cheapest((total * step).div_ceil(FRONT_STEPS))).collect();
    places.push(0);
    places.dedup();
    let point = |place: usize| {
        let (removed_parameters, loss) = points[place];
        FrontPoint { removed_parameters, ratio: removed_parameters as f64 / total as f64, loss }
    };
    places.into_iter().map(point).collect()
}
