//! Networks of any family as lists of steps: what a step does, the state that passes through the steps, what can be
//! removed, and what it costs.

mod condition;
mod granularity;
mod inventory;
mod prediction;
pub(super) mod removal;
mod segment;
pub(super) mod spec;
mod state;
mod step;
pub(super) mod steps;
mod tail;
mod unit;

pub use condition::{Condition, Conditioning};
pub use granularity::{Granularity, GranularityError};
pub use inventory::Inventory;
pub use prediction::Prediction;
pub use removal::PruneError;
pub use segment::Segment;
pub use state::WalkState;
pub use step::{Shared, Step};
pub use tail::{Tail, TailKind};
pub use unit::{LinearMap, Unit, UnitKind};
