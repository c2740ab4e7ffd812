//! A launcher with memory and matrix products: a card, the emulation in tests, or one that only counts.

use candle_core::{DType, Result, Shape, bail};

use super::array::Array;
use super::launch::Launcher;
use super::product::{Gemm, Product};

/// What the layers need of a device.
pub(in crate::nn) trait Machine: Launcher {
    /// Memory whose numbers are not set.
    fn allocate(&self, shape: Shape, dtype: DType) -> Result<Array>;

    /// Runs a matrix product, in the order of the launches.
    fn multiply(&self, product: &Gemm) -> Result<()>;
}

/// Numbers on their way to the host.
pub(in crate::nn) trait Arriving {
    /// Waits until they are there, but not for what was queued after them.
    fn wait(self: Box<Self>) -> Result<Vec<f32>>;
}

/// Runs a product, unless it has no elements.
pub(in crate::nn) fn multiply(machine: &dyn Machine, product: &Product) -> Result<()> {
    match product.sizes {
        [0, ..] | [_, 0, _] => Ok(()),
        [_, _, 0] => bail!("BUG: a product of {product:?} has no terms"),
        _ => machine.multiply(&product.gemm()?),
    }
}
