//! A backward pass that takes the gradients of weights without summing them.
//!
//! candle adds every gradient to fresh zeros (huggingface/candle#1241): for a weight this costs three more passes over
//! memory than the gradient itself, and briefly three copies of it. A weight is a variable that is used once per pass,
//! so its gradient needs no sum: [`backward`] provides a store, in which the operations of `nn` put the gradients of
//! variables, and candle never sees them. With candle's own `backward`, all gradients go through candle.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, bail};

thread_local! {
    /// The store of the backward pass that runs on this thread.
    static TAKEN: RefCell<Option<GradStore>> = const { RefCell::new(None) };
}

/// The gradients of the scalar `loss` with respect to every variable that it depends on.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let outer = TAKEN.replace(Some(GradStore::default()));
    let others = loss.backward();
    let taken = TAKEN.replace(outer);
    let mut gradients = others?;
    if let Some(taken) = taken {
        gradients.extend(taken)?;
    }
    Ok(gradients)
}

/// Adds to the gradient of a variable that is no operand in candle's graph.
pub(super) fn put(variable: &Tensor, gradient: Tensor) -> Result<()> {
    match give(variable, gradient)? {
        None => Ok(()),
        Some(_) => {
            bail!("BUG: the gradient of {variable:?} needs `nn::backward`, and candle's own was called")
        }
    }
}

/// The return value of an operation's `bwd` for an operand with this gradient.
pub(super) fn give(operand: &Tensor, gradient: Tensor) -> Result<Option<Tensor>> {
    if !operand.is_variable() {
        return Ok(Some(gradient));
    }
    TAKEN.with_borrow_mut(|taken| {
        let Some(taken) = taken else { return Ok(Some(gradient)) };
        let sum = match taken.remove(operand) {
            Some(earlier) => (earlier + gradient)?,
            None => gradient,
        };
        taken.insert(operand, sum);
        Ok(None)
    })
}
