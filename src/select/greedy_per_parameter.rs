//! The units of the lowest score per parameter first: Dantzig's rule for the knapsack (1957).

use std::collections::BTreeSet;

use super::removal::greedily;
use super::{Problem, Solver};
use crate::backend::Random;
use crate::base::UnitId;

pub(super) struct GreedyPerParameter;

impl Solver for GreedyPerParameter {
    fn name(&self) -> &'static str {
        "greedy-per-parameter"
    }

    fn summary(&self) -> &'static str {
        "the lowest score per parameter first, until enough is gone"
    }

    fn solve(&self, problem: &Problem, needed: u64, _random: &Random) -> BTreeSet<UnitId> {
        greedily(problem, needed, |step| step.loss / step.weight as f64)
    }
}
