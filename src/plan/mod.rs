//! The DAG of a pipeline, the key of every stage, and why a stage would run.
//!
//! Nothing here runs anything: the executor walks [`Graph::order`], asks [`manifest`] for each
//! stage's key and looks the key up; [`explain`] walks the same way and says what a run would do.

mod draw;
mod error;
mod explain;
mod graph;
mod key;
mod svg;

pub use draw::{dot, mermaid, text};
pub use error::PlanError;
pub use explain::{Forecast, Outcome, Reason, explain};
pub use graph::{Edge, Graph, Node};
pub use key::manifest;
pub use svg::svg;
