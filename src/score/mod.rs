//! How much each unit matters: criteria, the traversal that measures them, and whether losses add.

pub mod additivity;
pub mod gram;
pub mod table;

pub use additivity::{Additivity, Agreement, MeasuredSet};
pub use gram::Gram;
pub use table::{CriterionInfo, Scores, UnitScores};
