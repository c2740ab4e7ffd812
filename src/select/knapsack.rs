//! The exact optimum of the additive surrogate.
//! Zhang et al. 2024 (LAPTOP-Diff) pose pruning as combinatorial optimisation over additive output
//! losses; the covering form, the groups and the exact front are ours.

use std::collections::BTreeSet;

use super::{Front, Problem, Solver};
use crate::backend::Random;
use crate::base::UnitId;

pub(super) struct Knapsack;

impl Solver for Knapsack {
    fn name(&self) -> &'static str {
        "knapsack"
    }

    fn summary(&self) -> &'static str {
        "the least summed loss, exactly"
    }

    fn solve(&self, problem: &Problem, needed: u64, _random: &Random) -> BTreeSet<UnitId> {
        let front = Front::of(problem);
        let point = front.cheapest(needed).expect("`Problem::needed` found it reachable");
        front.removed(point)
    }
}
