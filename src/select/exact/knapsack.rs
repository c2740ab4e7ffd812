//! The optimum of the objective.
//! Zhang et al. 2024 (LAPTOP-Diff) pose pruning as combinatorial optimisation over additive output losses; the covering form,
//! the tree, the exact front and the search over a Gram matrix are ours.

use super::branch;
use super::front::Front;
use crate::backend::Random;
use crate::select::baselines::{greedily, grow};
use crate::select::problem::SelectionProblem;
use crate::select::solver::{Solution, Solver};

/// The number of sub-problems after which a search ends with a gap: some seconds for a hundred units.
const NODES: usize = 20_000;

/// What a pipeline file calls it.
pub(in crate::select) const NAME: &str = "knapsack";

pub(in crate::select) struct Knapsack;

impl Solver for Knapsack {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "the optimum of the objective, proven or with a proven gap"
    }

    fn solve(&self, problem: &SelectionProblem, _random: &Random) -> Solution {
        optimum(problem, NODES)
    }
}

/// A lower bound on the objective of all selections that meet the budgets; the optimum if losses add under one budget.
pub(in crate::select) fn bound(problem: &SelectionProblem) -> Option<f64> {
    optimum(problem, 1).bound
}

/// The optimum by the exact front if losses add under one budget, else by a search over at most `nodes` sub-problems.
pub(in crate::select) fn optimum(problem: &SelectionProblem, nodes: usize) -> Solution {
    if problem.gram.is_empty() && problem.budgets.len() == 1 {
        let front = Front::of(problem);
        let point = front.cheapest(problem.budgets[0].needed);
        let named =
            problem.named(&front.removed(point.expect("`SelectionProblem::check` found it reachable")));
        return Solution { bound: Some(problem.value(&named)), named, nodes: 1 };
    }
    let starts = [greedily(problem, |step, _| step.value), grow(problem)];
    let best = starts.into_iter().min_by(|a, b| problem.value(a).total_cmp(&problem.value(b)));
    branch::solve(problem, best.expect("there are two"), nodes)
}
