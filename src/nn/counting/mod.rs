//! Launches, bytes moved and memory of passes through a network on a GPU, from shapes alone.
//!
//! A [`Pass`] has the layers of `nn`, with values that have a shape and no numbers. With kernels, a layer runs the same code as on a
//! card, on a machine that only counts. Composed, it is charged what reading `composed` and candle's source gives, see
//! `composed`, and for candle's graph, which set the gradient of every value to zeros once and added the share of each of its
//! uses. With kernels there is `nn::tape`, which moves them.

mod composed;
mod graph;
mod layers;
mod products;

pub use graph::{Pass, Value};
pub use layers::{Parameters, Rows};

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launches of kernels and matrix products, and memory that is set or copied.
    pub launches: u64,
    /// Those of our own kernels and of matrix products that we call.
    pub own_launches: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Bytes if each layer read its operands and wrote its results once, and nothing were moved between layers.
    pub least_bytes: u64,
    /// The most bytes in use at one time.
    pub peak_bytes: u64,
}

/// What computes the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// Our kernels, as on a GPU in bf16.
    Kernels,
    /// Compositions of candle's operations in candle's graph, as before there were kernels and a tape.
    Composed,
}
