//! One stage at work: on the threads that compute, with its panics caught.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::backend::threads;
use crate::stage::{Context, Stage, StageError};

/// How an attempt ends when it does not end well.
pub(super) enum Ended {
    /// The stage gave an error.
    Error(StageError),
    /// The stage panicked with these words.
    Panic(String),
}

/// Runs a stage to its end.
pub(super) fn attempt(stage: &dyn Stage, context: &Context<'_>) -> Result<(), Ended> {
    // After a panic the stage's folder is thrown away, and nothing else of it is looked at.
    match catch_unwind(AssertUnwindSafe(|| threads::run(|| stage.run(context)))) {
        Ok(result) => result.map_err(Ended::Error),
        Err(payload) => Err(Ended::Panic(words(payload.as_ref()))),
    }
}

/// What a panic said, without the mark that the error adds again.
fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it did not say why");
    text.trim_start_matches("BUG:").trim_start().to_owned()
}
