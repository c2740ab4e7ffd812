//! Selections of the same budgets that a selection must be compared with.

use super::knapsack::NAME as EXACT;
use super::random::draw;
use super::selection::in_walk_order;
use super::{Baseline, Method, OBJECTIVES, Problem, Request, SelectError, solver};
use crate::backend::Random;
use crate::score::Scores;

const MAGNITUDE: &str = "magnitude";
const GREEDY: &str = "greedy";
/// What the optimum of the summed scores, the paper's selection, is called among the baselines of another.
pub(super) const ADDITIVE: &str = "additive-knapsack";
/// Enough for a spread; each costs `evaluate` one pass over its points.
const RANDOM: u64 = 20;

/// The baselines of what `request` asks for.
pub(super) fn baselines(
    scores: &Scores,
    problem: &Problem,
    request: &Request<'_>,
    random: &Random,
) -> Result<Vec<Baseline>, SelectError> {
    let baseline = |name: String, named: Vec<bool>| {
        let removed = problem.removed(&named);
        Baseline {
            name,
            removed: in_walk_order(scores, &removed),
            removed_parameters: scores.parameters(&removed),
        }
    };
    let mut baselines = Vec::new();
    if !matches!(request.method, Method::Solver(solver) if solver.name() == GREEDY) {
        baselines.push(baseline(GREEDY.to_owned(), solver(GREEDY)?.solve(problem, random).named));
    }
    let is_exact = !matches!(request.method, Method::Solver(solver) if solver.name() != EXACT);
    if !is_exact || request.objective.gram > 0.0 {
        let sums = Request { objective: &OBJECTIVES[0], ..*request }.problem(scores)?.losses;
        baselines
            .push(baseline(ADDITIVE.to_owned(), solver(EXACT)?.solve(&problem.additive(sums), random).named));
    }
    if request.criterion != MAGNITUDE && scores.criteria.iter().any(|name| name == MAGNITUDE) {
        let losses = scores.units.iter().map(|unit| unit.scores[MAGNITUDE]).collect();
        let named = solver(EXACT)?.solve(&problem.additive(losses), random).named;
        baselines.push(baseline(format!("{MAGNITUDE}-{EXACT}"), named));
    }
    baselines
        .extend((1..=RANDOM).map(|index| baseline(format!("random-{index}"), draw(problem, random, index))));
    Ok(baselines)
}
