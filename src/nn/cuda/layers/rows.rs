//! The sum of two tensors, and two tensors with their rows one after the other.

use candle_core::{Result, Tensor};

use super::{machine_of, output, tensor};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::launch::{Launch, Pointer};
use crate::nn::cuda::machine::Machine;
use crate::nn::operation::{Operation, Output};

const THREADS: usize = 256;

/// `a + b`
pub(in crate::nn) fn sum(machine: &dyn Machine, [a, b]: [&Array; 2]) -> Result<Array> {
    let (elements, numbers) = (a.shape.elem_count(), a.numbers()?);
    let y = machine.allocate(a.shape.clone(), a.dtype)?;
    let of_block = THREADS * 16 / numbers.bytes();
    let grid = [elements.div_ceil(of_block), 1, 1];
    Launch::new(format!("sum_{}", numbers.word()), grid, THREADS as u32)
        .moving(3 * y.bytes())
        .pointers([a.pointer, b.pointer, y.pointer])
        .sizes([elements])
        .run(machine)?;
    Ok(y)
}

/// Moves rows between two arrays of the given widths and one with both.
fn move_rows(
    machine: &dyn Machine,
    parts: [Option<&Array>; 2],
    whole: &Array,
    [of_a, of_b]: [usize; 2],
    splits: bool,
) -> Result<()> {
    let numbers = whole.numbers()?;
    let [a, b] = parts.map(|part| part.map_or(Pointer(0), |part| part.pointer));
    // A common multiple of two, four or eight is one of both.
    let both = of_a | of_b;
    let packs = whole.shape.elem_count() / numbers.pack(both);
    Launch::new(numbers.variant("move_rows", both), [packs.div_ceil(THREADS), 1, 1], THREADS as u32)
        .moving(2 * parts.iter().flatten().map(|part| part.bytes()).sum::<usize>())
        .pointers([a, b, whole.pointer])
        .sizes([whole.rows(), of_a, of_b, usize::from(splits)])
        .run(machine)
}

/// [.., a] and [.., b] -> [.., a + b]
pub(in crate::nn) fn concatenate(machine: &dyn Machine, [a, b]: [&Array; 2]) -> Result<Array> {
    let widths = [a.width(), b.width()];
    let mut dims = a.shape.dims().to_vec();
    *dims.last_mut().expect("an image has channels") = widths[0] + widths[1];
    let whole = machine.allocate(dims.into(), a.dtype)?;
    move_rows(machine, [Some(a), Some(b)], &whole, widths, false)?;
    Ok(whole)
}

/// The gradients of the two that are wanted, from that of both.
pub(in crate::nn) fn split(
    machine: &dyn Machine,
    [a, b]: [&Array; 2],
    gradient: &Array,
    wanted: [bool; 2],
) -> Result<[Option<Array>; 2]> {
    let like = |wanted: bool, part: &Array| {
        wanted.then(|| machine.allocate(part.shape.clone(), part.dtype)).transpose()
    };
    let (of_a, of_b) = (like(wanted[0], a)?, like(wanted[1], b)?);
    move_rows(machine, [of_a.as_ref(), of_b.as_ref()], gradient, [a.width(), b.width()], true)?;
    Ok([of_a, of_b])
}

/// The same of tensors.
pub(in crate::nn) fn add(a: &Tensor, b: &Tensor) -> Result<Output> {
    output(sum(&*machine_of(a)?, [&Array::of(a)?, &Array::of(b)?])?)
}

/// Operands: two images with their channels last.
pub(in crate::nn) struct Concatenate;

impl Operation<2> for Concatenate {
    fn forward(&self, [a, b]: &[Tensor; 2]) -> Result<Output> {
        output(concatenate(&*machine_of(a)?, [&Array::of(a)?, &Array::of(b)?])?)
    }

    fn backward(
        &self,
        [a, b]: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let parts = [&Array::of(a)?, &Array::of(b)?];
        let [of_a, of_b] = split(&*machine_of(a)?, parts, &Array::of(gradient)?, wanted)?;
        Ok([tensor(of_a)?, tensor(of_b)?])
    }
}
