//! Group norm of images with their channels last, and layer norm.

use candle_core::{DType, Result, Shape, Tensor};

use super::{Saved, machine_of, output, pointwise, tensor};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::group_norm::{self, Backward};
use crate::nn::cuda::layer_norm;
use crate::nn::cuda::machine::Machine;
use crate::nn::operation::{Operation, Output};

/// The rows that a norm is of.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) enum Rows {
    /// The groups of channels of each image [batch, .., channels], optionally followed by a SiLU.
    Groups { groups: usize, silu: bool },
    /// Each row of the last dimension.
    Last,
}

/// A norm with its epsilon.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Norm {
    pub(in crate::nn) rows: Rows,
    pub(in crate::nn) eps: f32,
}

impl Norm {
    fn groups(&self, x: &Array, groups: usize, silu: bool) -> Result<group_norm::GroupNorm> {
        let (batch, channels, numbers) = (x.shape.dims()[0], x.width(), x.numbers()?);
        let rows = x.rows() / batch.max(1);
        Ok(group_norm::GroupNorm { numbers, batch, rows, channels, groups, eps: self.eps, silu })
    }

    fn last(&self, x: &Array) -> Result<layer_norm::LayerNorm> {
        let (rows, channels, numbers) = (x.rows(), x.width(), x.numbers()?);
        Ok(layer_norm::LayerNorm { numbers, rows, channels, eps: self.eps })
    }

    /// The output, shaped as x, and what backward needs.
    pub(in crate::nn) fn forward(
        &self,
        machine: &dyn Machine,
        [x, weight, bias]: [&Array; 3],
    ) -> Result<[Array; 2]> {
        let y = machine.allocate(x.shape.clone(), x.dtype)?;
        let f32s = |count: usize| machine.allocate(Shape::from(count), DType::F32);
        let operands = [x.pointer, weight.pointer, bias.pointer];
        let statistics = match self.rows {
            Rows::Groups { groups, silu } => {
                let shape = self.groups(x, groups, silu)?;
                let (statistics, partial) = (f32s(shape.statistics())?, f32s(shape.forward_partial())?);
                let results = [y.pointer, statistics.pointer, partial.pointer];
                shape.forward(machine, operands, results)?;
                statistics
            }
            Rows::Last => {
                let shape = self.last(x)?;
                let statistics = f32s(shape.statistics())?;
                shape.forward(machine, operands, [y.pointer, statistics.pointer])?;
                statistics
            }
        };
        Ok([y, statistics])
    }

    /// The gradients of x, and of bias and weight together, [2, channels] in f32, if they are wanted.
    pub(in crate::nn) fn backward(
        &self,
        machine: &dyn Machine,
        [x, weight, bias]: [&Array; 3],
        [statistics, gradient]: [&Array; 2],
        [of_x, of_parameters]: [bool; 2],
    ) -> Result<[Option<Array>; 2]> {
        let f32s = |count: usize| machine.allocate(Shape::from(count), DType::F32);
        let dx = of_x.then(|| machine.allocate(x.shape.clone(), x.dtype)).transpose()?;
        let both = Shape::from((2, x.width()));
        let both = of_parameters.then(|| machine.allocate(both, DType::F32)).transpose()?;
        let [to_x, to_both] = [&dx, &both].map(|array| array.as_ref().map(|array| array.pointer));
        match self.rows {
            Rows::Groups { groups, silu } => {
                let shape = self.groups(x, groups, silu)?;
                let (partial, sums) = (f32s(shape.backward_partial())?, f32s(shape.sums())?);
                let operands = Backward {
                    x: x.pointer,
                    dy: gradient.pointer,
                    weight: weight.pointer,
                    bias: bias.pointer,
                    statistics: statistics.pointer,
                    partial: partial.pointer,
                    sums: sums.pointer,
                };
                shape.backward(machine, &operands, to_x, to_both)?;
            }
            Rows::Last => {
                let shape = self.last(x)?;
                let [x, dy, statistics] = [x.pointer, gradient.pointer, statistics.pointer];
                if let Some(dx) = to_x {
                    shape.backward(machine, [x, dy, weight.pointer, statistics], dx)?;
                }
                if let Some(both) = to_both {
                    let partial = f32s(shape.partial())?;
                    let operands = [x, dy, statistics, partial.pointer];
                    shape.parameters_backward(machine, operands, both)?;
                }
            }
        }
        Ok([dx, both])
    }
}

/// Operands: x, weight and bias `[channels]`.
pub(in crate::nn) struct Normalise {
    norm: Norm,
    statistics: Saved,
}

impl Normalise {
    pub(in crate::nn) fn new(rows: Rows, eps: f64) -> Self {
        Self { norm: Norm { rows, eps: eps as f32 }, statistics: Saved::none() }
    }
}

impl Operation<3> for Normalise {
    fn forward(&self, [x, weight, bias]: &[Tensor; 3]) -> Result<Output> {
        let operands = [&Array::of(x)?, &pointwise(weight)?, &pointwise(bias)?];
        let [y, statistics] = self.norm.forward(&*machine_of(x)?, operands)?;
        self.statistics.put(statistics);
        output(y)
    }

    fn backward(
        &self,
        [x, weight, bias]: &[Tensor; 3],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let operands = [&Array::of(x)?, &pointwise(weight)?, &pointwise(bias)?];
        let gradient = Array::of(gradient)?;
        let [dx, both] = self.statistics.with(|statistics| {
            let wanted = [of_x, of_weight || of_bias];
            self.norm.backward(&*machine_of(x)?, operands, [statistics, &gradient], wanted)
        })?;
        let both = tensor(both)?;
        let part = |wanted: bool, index| {
            both.as_ref().filter(|_| wanted).map(|both: &Tensor| both.get(index)).transpose()
        };
        Ok([tensor(dx)?, part(of_weight, 1)?, part(of_bias, 0)?])
    }
}
