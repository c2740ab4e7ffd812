//! What a selection is predicted to cost, and how sure that is.

use std::collections::BTreeSet;

use super::confidence::Interval;
use super::exact::Front;
use super::problem::SelectionProblem;
use super::selection::{FrontPoint, Predicted};
use super::solver::Solution;
use crate::base::UnitId;
use crate::score::{GRAM, OUTPUT_LOSS, Scores};

/// The file holds one point of the front for each half per cent of the U-Net; the exact front can have many thousands.
const FRONT_STEPS: u64 = 200;

impl Predicted {
    /// Predicts the cost of the units `removed`, with what the solver proved.
    pub(super) fn of(
        scores: &Scores,
        criterion: &str,
        problem: &SelectionProblem,
        removed: &BTreeSet<UnitId>,
        solution: &Solution,
    ) -> Self {
        let objective = problem.value(&problem.named(removed));
        let bound = solution.bound.unwrap_or(f64::MIN);
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
            nodes: solution.nodes,
            additive: scores.additive(removed, OUTPUT_LOSS),
            gram,
            joint: joint.collect(),
        }
    }
}

/// How far the objective may lie above the optimum, as a share of it.
fn gap(objective: f64, bound: f64) -> Option<f64> {
    if objective == bound || objective.abs().max(bound.abs()) < f64::EPSILON {
        return Some(0.0);
    }
    Some((objective - bound) / objective.abs()).filter(|gap| gap.is_finite())
}

/// The front at equal steps of the ratio.
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
