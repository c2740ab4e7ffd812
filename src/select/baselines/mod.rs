//! Solvers that never revise a decision: what the optimum must beat.

mod greedy;
mod greedy_per_parameter;
mod growth;
mod random;

pub(super) use greedy::Greedy;
pub(super) use greedy_per_parameter::{GreedyPerParameter, grow};
pub(super) use growth::greedily;
pub(super) use random::{RandomOrder, draw};
