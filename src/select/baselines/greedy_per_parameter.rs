//! The unit of the lowest loss per parameter first: Dantzig's rule for the knapsack (1957). Where other budgets are given,
//! a unit's weight is what it saves of those that are not reached yet, as shares of the whole.

use super::growth::greedily;
use crate::backend::Random;
use crate::select::problem::SelectionProblem;
use crate::select::solver::{Solution, Solver};

pub(in crate::select) struct GreedyPerParameter;

impl Solver for GreedyPerParameter {
    fn name(&self) -> &'static str {
        "greedy-per-parameter"
    }

    fn summary(&self) -> &'static str {
        "the lowest loss per parameter first, until enough is gone"
    }

    fn solve(&self, problem: &SelectionProblem, _random: &Random) -> Solution {
        Solution::unproved(grow(problem))
    }
}

pub(in crate::select) fn grow(problem: &SelectionProblem) -> Vec<bool> {
    greedily(problem, |step, open| {
        let share = |&place: &usize| step.saved[place] as f64 / problem.budgets[place].total as f64;
        step.value / open.iter().map(share).sum::<f64>()
    })
}
