//! Copies of f32 weights in bf16, for products on a GPU.
//!
//! A weight is trained in f32 and used in bf16, several times per step: forward, backward, and once more where activations are
//! computed again. A copy is written once per step, by the optimiser's launch. It is known by the ids of the tensors that
//! share the weight, and everything else that changes such a weight does so by [`set`].

use std::collections::HashMap;
use std::sync::{LazyLock, RwLock};

use candle_core::{DType, Result, Tensor, TensorId, Var};

/// The copies by the ids of their weights.
static COPIES: LazyLock<RwLock<HashMap<TensorId, Tensor>>> = LazyLock::new(RwLock::default);

const NO_PANIC: &str = "nothing panics while it holds the lock";

/// The copies of some weights, which end with this.
#[derive(Debug, Default)]
pub struct Copies(Vec<TensorId>);

impl Copies {
    /// Copies `weight`, unless there is a copy already, and lets `tensor`, which shares its numbers, be known by it too.
    pub fn add(&mut self, weight: &Var, tensor: &Tensor) -> Result<()> {
        let copy = match of(weight) {
            Some(copy) => copy,
            None => weight.as_detached_tensor().to_dtype(DType::BF16)?,
        };
        let mut copies = COPIES.write().expect(NO_PANIC);
        for id in [weight.id(), tensor.id()] {
            copies.insert(id, copy.clone());
            self.0.push(id);
        }
        Ok(())
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        let mut copies = COPIES.write().expect(NO_PANIC);
        for id in &self.0 {
            copies.remove(id);
        }
    }
}

/// The copy of a weight, if there is one.
pub(super) fn of(weight: &Tensor) -> Option<Tensor> {
    COPIES.read().expect(NO_PANIC).get(&weight.id()).cloned()
}

/// Sets a variable, and its copy.
pub fn set(variable: &Var, value: &Tensor) -> Result<()> {
    variable.set(value)?;
    renew(variable)
}

/// Writes the copy of a variable anew, after its numbers were changed in place.
pub fn renew(variable: &Var) -> Result<()> {
    let Some(copy) = of(variable) else { return Ok(()) };
    let value = variable.as_detached_tensor().to_dtype(copy.dtype())?;
    copy.slice_set(&value, 0, 0)
}
