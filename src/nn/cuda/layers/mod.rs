//! The layers of `nn` with our kernels: what each allocates and launches, forward and backward.
//!
//! Each file has two parts. The functions on [`Array`]s say which kernels and products make a layer; they run on any
//! [`Machine`], also on the one that only counts. The operation puts them on the tape.

mod attention;
mod convolution;
mod difference;
mod geglu;
mod linear;
mod norm;
mod optimiser;
mod rows;
mod weighted;

use std::sync::Mutex;

use candle_core::{DType, Result, Tensor};

use super::array::Array;
use super::device::machine;
use super::machine::Machine;
use crate::nn::operation::Output;

pub(in crate::nn) use attention::{Attention, attend, attend_backward};
pub(in crate::nn) use convolution::{Conv2d, Convolution};
pub(in crate::nn) use difference::{Difference, difference, difference_gradient};
pub(in crate::nn) use geglu::{Geglu, gate, gate_gradient};
pub(in crate::nn) use linear::{
    GatedOnto, Linear, Onto, gated_gradient, input_gradient, project, weight_gradient,
};
pub(in crate::nn) use norm::{Norm, Normalise, Rows};
pub use optimiser::{Moments, Trained};
pub(in crate::nn) use optimiser::{counted_update, norm_and_clip, update};
pub(in crate::nn) use rows::{Concatenate, add, concatenate, split, sum};

/// What forward leaves for backward.
struct Saved(Mutex<Option<Array>>);

impl Saved {
    fn none() -> Self {
        Self(Mutex::new(None))
    }

    fn put(&self, array: Array) {
        *self.0.lock().expect("nothing panics while it holds the lock") = Some(array);
    }

    fn with<R>(&self, act: impl FnOnce(&Array) -> Result<R>) -> Result<R> {
        let saved = self.0.lock().expect("nothing panics while it holds the lock");
        act(saved.as_ref().expect("BUG: backward came before forward"))
    }
}

/// The machine that computes with this tensor.
fn machine_of(tensor: &Tensor) -> Result<Box<dyn Machine>> {
    machine(tensor.device())
}

fn output(array: Array) -> Result<Output> {
    let (storage, shape) = array.into_storage()?;
    Ok(Output::Storage(storage, shape))
}

/// A parameter that is added or multiplied elementwise; the kernels read those in f32.
fn pointwise(parameter: &Tensor) -> Result<Array> {
    Array::of(&parameter.to_dtype(DType::F32)?)
}

fn tensor(array: Option<Array>) -> Result<Option<Tensor>> {
    array.map(Array::into_tensor).transpose()
}
