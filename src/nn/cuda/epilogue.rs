//! Launches what follows a matrix product, and the gradient of a bias.

use candle_core::{DType, Result, Shape};

use super::array::Array;
use super::channels::{CHANNEL_THREADS, Slabs, fold};
use super::launch::{Launch, Pointer};
use super::machine::Machine;

const THREADS: usize = 256;

/// `y [.., channels] += bias + residual`. A bias `[channels]` is that of all rows; one of [batch, channels] has a row for each
/// sample of y, whose first dimension is the batch.
pub(super) fn add_bias(
    machine: &dyn Machine,
    y: &Array,
    bias: Option<&Array>,
    residual: Option<&Array>,
) -> Result<()> {
    if bias.is_none() && residual.is_none() {
        return Ok(());
    }
    let numbers = y.numbers()?;
    let (rows, channels) = (y.rows(), y.width());
    let biases = bias.map_or(1, Array::rows);
    let packs = y.shape.elem_count() / numbers.pack(channels);
    let or_null = |array: Option<&Array>| array.map_or(Pointer(0), |array| array.pointer);
    let bytes = 2 * y.bytes() + residual.map_or(0, Array::bytes) + bias.map_or(0, Array::bytes);
    Launch::new(numbers.variant("add_bias", channels), [packs.div_ceil(THREADS), 1, 1], THREADS as u32)
        .moving(bytes)
        .pointers([y.pointer, or_null(bias), or_null(residual)])
        .sizes([rows, channels, (rows / biases).max(1)])
        .run(machine)
}

/// The sums over the rows of g [.., channels]: all rows for a bias `[channels]`, those of each sample for [batch, channels].
pub(in crate::nn) fn bias_gradient(machine: &dyn Machine, g: &Array, bias: &Shape) -> Result<Array> {
    let numbers = g.numbers()?;
    let channels = g.width();
    let batch = bias.elem_count() / channels.max(1);
    let rows = g.rows() / batch.max(1);
    let slabs = Slabs::new(batch, rows);
    let partial = machine.allocate(Shape::from((batch, slabs.count, channels)), DType::F32)?;
    Launch::new(numbers.variant("row_sums", channels), [slabs.count, batch, 1], CHANNEL_THREADS)
        .shared(numbers.sums_bytes(1, channels))
        .moving(g.bytes() + partial.bytes())
        .pointers([g.pointer, partial.pointer])
        .sizes([rows, channels, slabs.rows])
        .run(machine)?;
    let out = machine.allocate(bias.clone(), DType::F32)?;
    fold(machine, [batch, slabs.count, channels], partial.pointer, out.pointer)?;
    Ok(out)
}
