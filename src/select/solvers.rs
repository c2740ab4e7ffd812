//! The table of solvers.

use super::baselines::{Greedy, GreedyPerParameter, RandomOrder};
use super::exact::Knapsack;
use super::solver::Solver;
use crate::base::names::{self, UnknownName};

/// Every solver; the first is the default.
pub const SOLVERS: &[&dyn Solver] = &[&Knapsack, &Greedy, &GreedyPerParameter, &RandomOrder];

/// The solver of this name.
pub fn solver(name: &str) -> Result<&'static dyn Solver, UnknownName> {
    names::find("solver", SOLVERS, |solver| solver.name(), name).copied()
}
