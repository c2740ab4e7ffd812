//! Units in random order, the baseline that any criterion must beat.

use rand::seq::SliceRandom;

use crate::backend::Random;
use crate::select::problem::SelectionProblem;
use crate::select::solver::{Solution, Solver};

pub(in crate::select) struct RandomOrder;

impl Solver for RandomOrder {
    fn name(&self) -> &'static str {
        "random"
    }

    fn summary(&self) -> &'static str {
        "units in random order, until every budget is met"
    }

    fn solve(&self, problem: &SelectionProblem, random: &Random) -> Solution {
        Solution::unproved(draw(problem, random, 0))
    }
}

/// Random selection number `index`: every order of the innermost units is equally likely.
pub(in crate::select) fn draw(problem: &SelectionProblem, random: &Random, index: u64) -> Vec<bool> {
    let mut order: Vec<_> = problem.tree.leaves().collect();
    order.shuffle(&mut random.stream("random selection", index));
    problem.fill(&problem.rules, order).expect("`SelectionProblem::check` found the budgets reachable")
}
