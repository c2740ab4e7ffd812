//! What is solution: units with losses inside one another, budgets, objectives, and rules on what is removed or kept.

mod budget;
mod objective;
mod rules;
mod selection_problem;
mod toggle_effect;
mod tree;

pub use budget::Budget;
pub use objective::{OBJECTIVES, Objective, ObjectiveInfo};
pub(super) use rules::Contradiction;
pub use rules::Rules;
pub use selection_problem::SelectionProblem;
pub(super) use toggle_effect::ToggleEffect;
pub use tree::Tree;
