//! Records which tensors a model requests by building it against a ledger instead of a file. The inventory of a model
//! is derived from its build, so the two always agree.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};

use super::tensor::TensorEntry;
use super::weights::Weights;
use crate::model::error::ModelError;

/// Answers every request with a zero broadcast to the shape, so that building a model of any size costs almost no
/// memory.
#[derive(Clone, Default)]
pub(in crate::model) struct Ledger {
    entries: Arc<Mutex<Vec<TensorEntry>>>,
    /// Decides which tensors exist, where a build checks for optional ones.
    present: Option<Weights>,
}

impl Ledger {
    pub(in crate::model) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    /// The requests since the last call, in order.
    pub(in crate::model) fn take(&self) -> Vec<TensorEntry> {
        std::mem::take(&mut *self.entries.lock().expect("no build panics while it holds the lock"))
    }
}

impl SimpleBackend for Ledger {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let entry = TensorEntry { name: name.to_owned(), shape: shape.dims().to_vec() };
        self.entries.lock().expect("no build panics while it holds the lock").push(entry);
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("`{name}` was requested without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.present.as_ref().is_some_and(|weights| weights.contains(name))
    }
}

/// Fails on the first tensor that a build requests and that is missing or has another shape. Returns the tensors that it
/// does not request.
pub(in crate::model) fn check<M>(
    weights: &Weights,
    build: impl Fn(VarBuilder<'static>) -> Result<M>,
) -> std::result::Result<Vec<String>, ModelError> {
    let ledger = Ledger { present: Some(weights.clone()), ..Ledger::default() };
    build(ledger.builder())?;
    let needed = ledger.take();
    // Before missing tensors: an addition can rename those of the network.
    let unread = weights.unread(&needed)?;
    weights.check(&needed)?;
    Ok(unread)
}

/// Builds a model twice: first against a ledger, to report wrong names and shapes clearly, then with the weights.
pub(in crate::model) fn load<M>(
    weights: &Weights,
    dtype: DType,
    device: &Device,
    build: impl Fn(VarBuilder<'static>) -> Result<M>,
) -> std::result::Result<M, ModelError> {
    check(weights, &build)?;
    Ok(build(weights.builder(dtype, device))?)
}
