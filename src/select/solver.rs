//! What every way to choose units has in common.

use crate::backend::Random;
use crate::select::problem::SelectionProblem;

/// A way to choose the units.
pub trait Solver: Sync {
    /// What a pipeline file calls it.
    fn name(&self) -> &'static str;

    /// One line for `laptop-diff list`.
    fn summary(&self) -> &'static str;

    /// A selection that reaches the budgets, which [`SelectionProblem::check`] found reachable.
    fn solve(&self, problem: &SelectionProblem, random: &Random) -> Solution;
}

/// A selection, and what its solver proved about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// For each unit, whether the selection names it.
    pub named: Vec<bool>,
    /// No selection that reaches the budgets has a smaller objective than this.
    pub bound: Option<f64>,
    /// How many sub-problems were examined.
    pub nodes: usize,
}

impl Solution {
    /// A selection about which nothing is proved.
    pub(super) fn unproved(named: Vec<bool>) -> Self {
        Self { named, bound: None, nodes: 0 }
    }
}
