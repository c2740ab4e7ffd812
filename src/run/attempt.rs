//! Runs one stage on the compute threads and catches its panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::backend::threads;
use crate::stage::{Context, Stage, StageError};

/// How an attempt fails.
pub(super) enum Ended {
    /// The stage gave an error.
    Error(StageError),
    /// The stage panicked with these words.
    Panic(String),
}

/// Runs a stage to its end.
pub(super) fn attempt(stage: &dyn Stage, context: &Context<'_>) -> Result<(), Ended> {
    // After a panic the stage's output folder is deleted, and nothing else of the stage is used.
    match catch_unwind(AssertUnwindSafe(|| threads::run(|| stage.run(context)))) {
        Ok(result) => result.map_err(Ended::Error),
        Err(payload) => Err(Ended::Panic(words(payload.as_ref()))),
    }
}

/// The text of a panic, without the `BUG:` that the error adds.
fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    text.trim_start_matches("BUG:").trim_start().to_owned()
}
