//! Gated GELU.

use candle_core::{Result, Tensor};

use super::{machine_of, output};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::geglu as kernels;
use crate::nn::cuda::machine::Machine;
use crate::nn::operation::{Operation, Output};

fn shape(x: &Array) -> Result<kernels::Geglu> {
    Ok(kernels::Geglu { numbers: x.numbers()?, rows: x.rows(), half: x.width() / 2 })
}

/// x [.., 2n] -> [.., n]
pub(in crate::nn) fn gate(machine: &dyn Machine, x: &Array) -> Result<Array> {
    let mut dims = x.shape.dims().to_vec();
    *dims.last_mut().expect("the layer checks the rank") /= 2;
    let y = machine.allocate(dims.into(), x.dtype)?;
    shape(x)?.forward(machine, x.pointer, y.pointer)?;
    Ok(y)
}

/// The gradient of x.
pub(in crate::nn) fn gate_gradient(machine: &dyn Machine, x: &Array, gradient: &Array) -> Result<Array> {
    let dx = machine.allocate(x.shape.clone(), x.dtype)?;
    shape(x)?.backward(machine, [x.pointer, gradient.pointer], dx.pointer)?;
    Ok(dx)
}

/// Operand: x [.., 2n].
pub(in crate::nn) struct Geglu;

impl Operation<1> for Geglu {
    fn forward(&self, [x]: &[Tensor; 1]) -> Result<Output> {
        output(gate(&*machine_of(x)?, &Array::of(x)?)?)
    }

    fn backward(
        &self,
        [x]: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let dx = gate_gradient(&*machine_of(x)?, &Array::of(x)?, &Array::of(gradient)?)?;
        Ok([Some(dx.into_tensor()?)])
    }
}
