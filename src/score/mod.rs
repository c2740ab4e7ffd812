//! How much each unit matters: the criteria, the measurements they share, and whether losses add.

pub mod additivity;
mod agreement;
mod batches;
mod checkpoint;
mod context;
mod criteria;
mod criterion;
mod doubles;
mod effects;
mod error;
mod evidence;
mod gradients;
mod gram;
mod joint;
mod need;
mod predictions;
mod scores;
mod scoring;
mod teacher;
mod traversal;
pub mod walk;

pub use agreement::{Additivity, Agreement, GRAM, MeasuredSet, ROUNDING};
pub use context::{Limits, ScoringContext};
pub use criteria::{CRITERIA, criterion, with_parameters};
pub use criterion::{Criterion, CriterionInfo};
pub use error::ScoreError;
pub use evidence::Evidence;
pub use gradients::{Gradients, TimestepGradients, gradients};
pub use gram::Gram;
pub use joint::{joint_losses, joint_products};
pub use need::Need;
pub use scores::{OUTPUT_LOSS, Scores, UnitScores};
pub use scoring::score;
pub use teacher::{ClipScore, Teacher, gradient_bytes};
pub use traversal::{TaskEffects, Traversal, traverse};
