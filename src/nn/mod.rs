//! Layers with tested gradients; the kernels stand behind them.
//!
//! candle's own fused layers cut the graph without a word (layer norm, softmax) or give wrong gradients
//! (nearest upsampling), so no module above this one calls them. Every layer here has two sides with a backward
//! each and chooses by device and type: f32 on the CPU runs a kernel (`cpu`), anything else candle's operations
//! in a row (`composed`).

mod activation;
mod attention;
pub mod average;
mod composed;
mod conv;
mod cpu;
mod difference;
mod embedding;
mod gradient;
pub mod gradients;
mod linear;
mod norm;
pub mod optim;
mod precision;
mod upsample;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv::Conv2d;
pub use difference::mean_square_difference;
pub use embedding::timestep_embedding;
pub use gradient::backward;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
use precision::or_zeros;
pub use precision::{accumulation_dtype, activation_dtype, pointwise};
pub use upsample::upsample_nearest_2x;

/// Raised when the layers give other bytes for the same operands; every stage that computes then runs again.
/// 1: columns everywhere. 2: Winograd's and the direct way, attention by blocks of keys, sums in strands.
pub const VERSION: u32 = 2;

#[cfg(test)]
mod tests;
