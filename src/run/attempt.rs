//! One stage at work: on a thread of its own, with a stack for deep graphs of gradients, and with its
//! panics caught.

use std::any::Any;
use std::thread;

use crate::stage::{Context, Stage, StageError};

/// candle drops a chain of tensors by recursion, one frame per operation; training chains are long.
/// The memory is only reserved until it is touched.
const STACK_BYTES: usize = 64 << 20;

/// How an attempt ends when it does not end well.
pub(super) enum Ended {
    /// The stage gave an error.
    Error(StageError),
    /// The stage panicked with these words.
    Panic(String),
}

/// Runs a stage to its end.
pub(super) fn attempt(stage: &dyn Stage, context: &Context<'_>) -> Result<(), Ended> {
    let thread = thread::Builder::new().name(context.id.to_string()).stack_size(STACK_BYTES);
    let joined = thread::scope(|scope| {
        let handle = thread.spawn_scoped(scope, || stage.run(context));
        handle.expect("the system has a thread to give").join()
    });
    match joined {
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
