//! The unit of the lowest loss first, whatever it weighs: how most one-shot pruning papers select. Under `gram` the loss is
//! what the unit adds to that of the units that are gone already.

use super::growth::greedily;
use crate::backend::Random;
use crate::select::problem::SelectionProblem;
use crate::select::solver::{Solution, Solver};

pub(in crate::select) struct Greedy;

impl Solver for Greedy {
    fn name(&self) -> &'static str {
        "greedy"
    }

    fn summary(&self) -> &'static str {
        "the lowest losses first, until enough is gone"
    }

    fn solve(&self, problem: &SelectionProblem, _random: &Random) -> Solution {
        Solution::unproved(greedily(problem, |step, _| step.value))
    }
}
