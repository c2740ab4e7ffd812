//! Turns a pipeline file into the DAG of all stages, with the key of every stage and the reason why it would run.
//!
//! Nothing here runs a stage: the executor walks [`Graph::order`], asks [`ResolvedPipeline::manifest`] for each stage's
//! key and looks the key up; [`explain`] walks the same way and reports what a run would do.

mod branch;
mod draw;
mod error;
mod expand;
mod explain;
mod files;
mod forecast;
mod graph;
mod key;
mod needs;
mod references;
mod resolved;
mod svg;
#[cfg(test)]
mod testing;

pub use branch::Branch;
pub use draw::{dot, mermaid, text};
pub use error::{PlanError, Unfit};
pub use expand::PlannedStage;
pub use explain::explain;
pub use forecast::{Forecast, Outcome, Reason, shown_value};
pub use graph::{Edge, Graph, Node};
pub use key::manifest;
pub use needs::StageNeeds;
pub use resolved::ResolvedPipeline;
pub use svg::svg;
