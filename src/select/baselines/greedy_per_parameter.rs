//! The unit of the lowest loss per parameter first: Dantzig's rule for the knapsack (1957). With other budgets, a unit's
//! weight is the sum of its shares of the budgets not yet met.

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
        "the units of the lowest loss per parameter first, until every budget is met"
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
