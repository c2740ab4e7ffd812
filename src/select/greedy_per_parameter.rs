//! The unit of the lowest loss per parameter first: Dantzig's rule for the knapsack (1957). Where other budgets are given,
//! a unit's weight is what it saves of those that are not reached yet, as shares of the whole.

use super::growth::greedily;
use super::{Problem, Solved, Solver};
use crate::backend::Random;

pub(super) struct GreedyPerParameter;

impl Solver for GreedyPerParameter {
    fn name(&self) -> &'static str {
        "greedy-per-parameter"
    }

    fn summary(&self) -> &'static str {
        "the lowest loss per parameter first, until enough is gone"
    }

    fn solve(&self, problem: &Problem, _random: &Random) -> Solved {
        Solved::plain(grow(problem))
    }
}

pub(super) fn grow(problem: &Problem) -> Vec<bool> {
    greedily(problem, |step, open| {
        let share = |&place: &usize| step.saved[place] as f64 / problem.budgets[place].total as f64;
        step.value / open.iter().map(share).sum::<f64>()
    })
}
