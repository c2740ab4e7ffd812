//! Gradients of a computation: what runs here is on a tape.

use candle_core::{Result, Tensor};

use super::sum::add;
use super::tape::{self, Found, Tape};

/// Runs a forward pass with its operations on a tape.
pub fn record<T>(forward: impl FnOnce() -> Result<T>) -> Result<(T, Tape)> {
    tape::record(add, forward)
}

/// A scalar loss, and its gradients with respect to every variable that it depends on.
pub fn differentiate(loss: impl FnOnce() -> Result<Tensor>) -> Result<(Tensor, Found)> {
    let (loss, tape) = record(loss)?;
    let found = tape.backward([(loss.clone(), loss.ones_like()?)])?;
    Ok((loss.detach(), found))
}
