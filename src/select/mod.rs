//! From scores to a selection: which units are removed so that every budget is met.
//!
//! From the ground up: `problem` is what is solved; `baselines` and `exact` solve it; `shapes` restricts it to what other
//! programs load; a request names all of these; `refine` improves the result by measuring. A file imports only from groups
//! before its own.

mod error;

mod problem;

mod solver;

mod baselines;

mod exact;

mod solvers;

mod shapes;

mod request;

mod maps;

mod confidence;

mod selection;

mod prediction;

mod comparison;

mod choose;

mod refine;

pub use confidence::Interval;
pub use error::SelectError;
pub use exact::Front;
pub use maps::count_maps;
pub use problem::{Budget, OBJECTIVES, Objective, ObjectiveInfo, Rules, SelectionProblem, Tree};
pub use refine::{Measure, Refiner};
pub use request::{Budgets, MemoryBudget, Method, SelectionRequest};
pub use selection::{
    Baseline, Candidate, FORMAT, FrontPoint, Improvement, Predicted, Refinement, Selection, Spent,
};
pub use shapes::{ENCODERS, FITS, Fit, KnownDepths, LAYOUTS, Layout, SDCPP, encoder};
pub use solver::{Solution, Solver};
pub use solvers::{SOLVERS, solver};
