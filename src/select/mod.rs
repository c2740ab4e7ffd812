//! From scores to a selection: which units go, so that enough of the U-Net goes.

mod baselines;
mod branch;
pub mod budget;
mod choice;
mod confidence;
mod convex;
mod error;
pub mod fit;
pub mod front;
mod greedy;
mod greedy_per_parameter;
mod growth;
mod improve;
pub mod knapsack;
pub mod layout;
pub mod loader;
pub mod objective;
pub mod portfolio;
mod predicted;
pub mod problem;
mod proposals;
mod random;
pub mod refine;
mod relaxation;
pub mod request;
pub mod rules;
mod search;
pub mod selection;
mod toggle;
pub mod tree;

use crate::backend::Random;

pub use budget::Budget;
pub use confidence::Interval;
pub use error::SelectError;
pub use fit::{FITS, Fit};
pub use front::Front;
pub use layout::{LAYOUTS, Layout, layout};
pub use objective::{OBJECTIVES, Objective, objective};
pub use portfolio::Candidate;
pub use predicted::{FrontPoint, Predicted};
pub use problem::Problem;
pub use refine::{Improvement, Refinement, Refiner};
pub use request::{Budgets, Memory, Method, Request};
pub use rules::Rules;
pub use selection::{Baseline, Selection, Spent};
pub use tree::Tree;

/// A way to choose the units.
pub trait Solver: Sync {
    /// What a pipeline file calls it.
    fn name(&self) -> &'static str;

    /// One line for `laptop-diff list`.
    fn summary(&self) -> &'static str;

    /// A selection that reaches the budgets, which [`Problem::check`] found reachable.
    fn solve(&self, problem: &Problem, random: &Random) -> Solved;
}

/// A selection, and what its solver knows of others.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// Of each unit, whether the selection names it.
    pub named: Vec<bool>,
    /// No selection that reaches the budgets has a smaller objective.
    pub bound: Option<f64>,
    /// How many sub-problems were looked at.
    pub nodes: usize,
}

/// Every solver there is; the first is the default.
pub const SOLVERS: &[&dyn Solver] =
    &[&knapsack::Knapsack, &greedy::Greedy, &greedy_per_parameter::GreedyPerParameter, &random::RandomOrder];

/// The solver of this name.
pub fn solver(name: &str) -> Result<&'static dyn Solver, SelectError> {
    SOLVERS.iter().copied().find(|solver| solver.name() == name).ok_or_else(|| SelectError::UnknownSolver {
        name: name.to_owned(),
        known: SOLVERS.iter().map(|solver| solver.name()).collect::<Vec<_>>().join(", "),
    })
}

impl Solved {
    /// A selection that says nothing of others.
    fn plain(named: Vec<bool>) -> Self {
        Self { named, bound: None, nodes: 0 }
    }
}
