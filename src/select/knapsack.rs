//! The optimum of the objective.
//! Zhang et al. 2024 (LAPTOP-Diff) pose pruning as combinatorial optimisation over additive output losses; the covering form,
//! the tree, the exact front and the search over a Gram matrix are ours.

use super::growth::greedily;
use super::{Front, Problem, Solved, Solver, branch, greedy_per_parameter};
use crate::backend::Random;

/// Sub-problems after which a search ends with the gap that it then has: some seconds for a hundred units.
const NODES: usize = 20_000;

/// What a pipeline file calls it.
pub(super) const NAME: &str = "knapsack";

pub(super) struct Knapsack;

impl Solver for Knapsack {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "the least objective: proven, or with a proven gap"
    }

    fn solve(&self, problem: &Problem, _random: &Random) -> Solved {
        optimum(problem, NODES)
    }
}

/// A lower bound on the objective of all selections that reach the budgets; the optimum where losses add under one budget.
pub(super) fn bound(problem: &Problem) -> Option<f64> {
    optimum(problem, 1).bound
}

/// From the exact front where it holds the problem, else by a search over at most so many `nodes`.
pub(super) fn optimum(problem: &Problem, nodes: usize) -> Solved {
    if problem.gram.is_empty() && problem.budgets.len() == 1 {
        let front = Front::of(problem);
        let point = front.cheapest(problem.budgets[0].needed);
        let named = problem.named(&front.removed(point.expect("`Problem::check` found it reachable")));
        return Solved { bound: Some(problem.value(&named)), named, nodes: 1 };
    }
    let starts = [greedily(problem, |step, _| step.value), greedy_per_parameter::grow(problem)];
    let best = starts.into_iter().min_by(|a, b| problem.value(a).total_cmp(&problem.value(b)));
    branch::solve(problem, best.expect("there are two"), nodes)
}
