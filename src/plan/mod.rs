//! The DAG of a pipeline, the key of every stage, and why a stage would run.
//!
//! Nothing here runs anything: the executor walks [`Graph::order`], asks [`manifest`] for each
//! stage's key and looks the key up; [`mod@explain`] walks the same way and says what it would do.

mod graph;
mod key;

pub use graph::{Edge, Graph, Node};
pub use key::manifest;
