//! Units in random order: what any criterion must beat.

use rand::seq::SliceRandom;

use super::{Problem, Solved, Solver};
use crate::backend::Random;

pub(super) struct RandomOrder;

impl Solver for RandomOrder {
    fn name(&self) -> &'static str {
        "random"
    }

    fn summary(&self) -> &'static str {
        "units in random order, until enough is gone"
    }

    fn solve(&self, problem: &Problem, random: &Random) -> Solved {
        Solved::plain(draw(problem, random, 0))
    }
}

/// The random selection of number `index`: each order of the innermost units is equally likely.
pub(super) fn draw(problem: &Problem, random: &Random, index: u64) -> Vec<bool> {
    let mut order: Vec<_> = problem.tree.leaves().collect();
    order.shuffle(&mut random.stream("random selection", index));
    problem.fill(&problem.rules, order).expect("`Problem::check` found the budgets reachable")
}
