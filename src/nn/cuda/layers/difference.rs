//! mean((a - b)^2), whose gradient reads that of the mean on the device, so the host never waits for it.

use candle_core::{DType, Result, Shape, Tensor};

use super::{machine_of, output};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::launch::Launch;
use crate::nn::cuda::machine::Machine;
use crate::nn::operation::{Operation, Output};

const THREADS: u32 = 256;
/// Elements per block.
const CHUNK: usize = 1 << 14;
/// Room for a sum of each warp in f64.
const SCRATCH_BYTES: usize = THREADS as usize / 32 * size_of::<f64>();

/// The mean, a scalar in f32.
pub(in crate::nn) fn difference(machine: &dyn Machine, [a, b]: [&Array; 2]) -> Result<Array> {
    let elements = a.shape.elem_count();
    let blocks = elements.div_ceil(CHUNK);
    let partial = machine.allocate(Shape::from(blocks), DType::F64)?;
    Launch::new(format!("difference_sums_{}", a.numbers()?.word()), [blocks, 1, 1], THREADS)
        .shared(SCRATCH_BYTES)
        .moving(2 * a.bytes())
        .pointers([a.pointer, b.pointer, partial.pointer])
        .sizes([elements])
        .run(machine)?;
    let mean = machine.allocate(Shape::from(()), DType::F32)?;
    Launch::new("difference_mean", [1, 1, 1], THREADS)
        .shared(SCRATCH_BYTES)
        .moving(partial.bytes())
        .pointers([partial.pointer, mean.pointer])
        .sizes([blocks, elements])
        .run(machine)?;
    Ok(mean)
}

/// The gradient of a, from that of the mean.
pub(in crate::nn) fn difference_gradient(
    machine: &dyn Machine,
    [a, b, gradient]: [&Array; 3],
) -> Result<Array> {
    let (elements, numbers) = (a.shape.elem_count(), a.numbers()?);
    let da = machine.allocate(a.shape.clone(), a.dtype)?;
    let of_block = THREADS as usize * 16 / numbers.bytes();
    let kernel = format!("difference_gradient_{}", numbers.word());
    Launch::new(kernel, [elements.div_ceil(of_block), 1, 1], THREADS)
        .moving(3 * a.bytes())
        .pointers([a.pointer, b.pointer, gradient.pointer, da.pointer])
        .sizes([elements])
        .numbers([2.0 / elements as f32])
        .run(machine)?;
    Ok(da)
}

/// Operands: two tensors of the same shape and type.
pub(in crate::nn) struct Difference;

impl Operation<2> for Difference {
    fn forward(&self, [a, b]: &[Tensor; 2]) -> Result<Output> {
        output(difference(&*machine_of(a)?, [&Array::of(a)?, &Array::of(b)?])?)
    }

    fn backward(
        &self,
        [a, b]: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let (machine, gradient) = (machine_of(a)?, Array::of(gradient)?);
        let (a, b) = (Array::of(a)?, Array::of(b)?);
        let of = |operands: [&Array; 2]| {
            difference_gradient(&*machine, [operands[0], operands[1], &gradient])?.into_tensor()
        };
        Ok([wanted[0].then(|| of([&a, &b])).transpose()?, wanted[1].then(|| of([&b, &a])).transpose()?])
    }
}
