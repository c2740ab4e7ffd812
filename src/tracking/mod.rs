//! Tells a tracking server, or TensorBoard, what a run finds out: one run there for a run, and below it one for each branch of a sweep.
//!
//! It is a reader. The event log says what happened, the record of the run what each stage depends on, the artefacts and checkpoints
//! what was found; the run itself knows nothing of it, waits for nothing and never fails by it. What the server was told is
//! kept in the run folder (`mlflow/run.rs`), so nothing has to wait in memory for a server that is away: a later look, or the
//! next run of the same command, finds what is missing.

#[cfg(all(test, feature = "hub"))]
mod example;
mod log;
mod mlflow;
mod numbers;
mod subject;
mod teller;
mod tensorboard;
#[cfg(all(test, feature = "hub"))]
mod testing;
#[cfg(all(test, feature = "hub"))]
mod tests;
mod thread;
mod training;

pub use teller::{Role, Source};
pub use tensorboard::results;
pub use thread::Tracker;
