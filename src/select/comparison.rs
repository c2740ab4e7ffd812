//! Selections under the same budgets, for comparison with the one that was chosen.

use super::baselines::{Greedy, draw};
use super::error::SelectError;
use super::exact::{self, Knapsack};
use super::problem::{OBJECTIVES, SelectionProblem};
use super::request::{Method, SelectionRequest};
use super::selection::Baseline;
use super::solver::Solver;
use crate::backend::Random;
use crate::score::Scores;

const MAGNITUDE: &str = "magnitude";
/// The name of the optimum of the summed scores, the paper's selection, among the baselines of another.
pub(super) const ADDITIVE: &str = "additive-knapsack";
/// Enough to show the spread; each costs `evaluate` one pass over its points.
const RANDOM: u64 = 20;

/// The baselines for `request`.
pub(super) fn baselines(
    scores: &Scores,
    problem: &SelectionProblem,
    request: &SelectionRequest<'_>,
    random: &Random,
) -> Result<Vec<Baseline>, SelectError> {
    let baseline = |name: String, named: Vec<bool>| {
        let removed = problem.removed(&named);
        Baseline {
            name,
            removed: problem.in_walk_order(&removed),
            removed_parameters: scores.parameters(&removed),
        }
    };
    let summed = |losses: Vec<f64>| Knapsack.solve(&problem.additive(losses), random).named;
    let is_by = |name: &str| matches!(request.method, Method::Solver(solver) if solver.name() == name);
    let mut baselines = Vec::new();
    if !is_by(Greedy.name()) {
        baselines.push(baseline(Greedy.name().to_owned(), Greedy.solve(problem, random).named));
    }
    let is_exact = is_by(exact::NAME) || !matches!(request.method, Method::Solver(_));
    if !is_exact || request.objective.gram > 0.0 {
        let sums = SelectionRequest { objective: &OBJECTIVES[0], ..*request }.problem(scores)?.losses;
        baselines.push(baseline(ADDITIVE.to_owned(), summed(sums)));
    }
    if request.criterion != MAGNITUDE && scores.criteria.iter().any(|name| name == MAGNITUDE) {
        let losses = scores.units.iter().map(|unit| unit.scores[MAGNITUDE]).collect();
        baselines.push(baseline(format!("{MAGNITUDE}-{}", exact::NAME), summed(losses)));
    }
    baselines
        .extend((1..=RANDOM).map(|index| baseline(format!("random-{index}"), draw(problem, random, index))));
    Ok(baselines)
}
