//! The units of the lowest score first, whatever they weigh: how most one-shot pruning papers select.

use std::collections::BTreeSet;

use super::removal::greedily;
use super::{Problem, Solver};
use crate::backend::Random;
use crate::base::UnitId;

pub(super) struct Greedy;

impl Solver for Greedy {
    fn name(&self) -> &'static str {
        "greedy"
    }

    fn summary(&self) -> &'static str {
        "the lowest scores first, until enough is gone"
    }

    fn solve(&self, problem: &Problem, needed: u64, _random: &Random) -> BTreeSet<UnitId> {
        greedily(problem, needed, |step| step.loss)
    }
}
