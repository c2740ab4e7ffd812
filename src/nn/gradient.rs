//! Backward, with the gradients of weights taken as they come.
//!
//! candle adds every gradient to fresh zeros (huggingface/candle#1241): for a weight that is three more passes over
//! memory than the gradient took to make, and for a moment three copies of it. A weight is a variable, used once in
//! a pass, so its gradient needs no sum: [`backward`] sets a place aside, the operations of `nn` put the gradients of
//! variables there, and candle never sees them. Under candle's own `backward` everything goes candle's way.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor};

thread_local! {
    /// The place for the backward pass that runs on this thread.
    static TAKEN: RefCell<Option<GradStore>> = const { RefCell::new(None) };
}

/// The gradients of `loss`, one element, with respect to every variable that it depends on.
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

/// What an operation's `bwd` returns for an operand with this gradient.
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
