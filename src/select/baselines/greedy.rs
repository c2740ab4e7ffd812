//! The unit of the lowest loss first, whatever its size, as in most papers on one-shot pruning. Under `gram` the loss is what
//! the unit adds to that of the units removed before.

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
        "the units of the lowest loss first, until every budget is met"
    }

    fn solve(&self, problem: &SelectionProblem, _random: &Random) -> Solution {
        Solution::unproved(greedily(problem, |step, _| step.value))
    }
}
