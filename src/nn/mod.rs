//! Layers with tested gradients, and the kernels that compute them.
//!
//! candle's own fused layers silently detach from the graph (layer norm, softmax) or give wrong gradients (nearest
//! upsampling), so other modules do not call them. Every layer here has up to three implementations, each with a backward pass,
//! and chooses by device and type (`route`): kernels for CPUs (`cpu`), kernels for GPUs (`cuda`), or a composition of candle's
//! operations (`composed`). On a GPU, images have their channels last (`image`).

mod activation;
mod attention;
pub mod average;
pub mod blockwise;
mod composed;
mod conv;
pub mod copies;
pub mod counting;
mod cpu;
mod cuda;
mod difference;
mod embedding;
mod finite;
mod gradient;
pub mod gradients;
pub mod image;
mod later;
pub mod least_squares;
mod linear;
mod norm;
mod operation;
pub mod optim;
mod precision;
mod route;
mod sum;
mod tape;
mod upsample;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::{attention, attention_of};
pub use conv::Conv2d;
pub(crate) use cuda::address_of;
pub use difference::mean_square_difference;
pub use embedding::timestep_embedding;
pub use finite::first_not_finite;
pub use gradient::{differentiate, record};
pub use later::{Later, to_device};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use operation::settled;
pub use precision::{accumulation_dtype, activation_dtype, pointwise};
use precision::{or_zeros, widened};
pub use sum::add;
pub use tape::{Found, Tape, tracked};
pub use upsample::upsample_nearest_2x;

/// Increased when the layers give different bytes for the same operands; every stage that computes then runs again.
/// 1: columns for every convolution. 2: Winograd's and the direct method, attention in blocks of keys, vectorised sums.
/// 3: sums over the pixels of an image in f64. 4: products of weights in bf16 on processors that multiply it.
/// 5: the same by the tiles of AMX; attention in bf16 in strips of queries.
pub const VERSION: u32 = 5;

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
pub(crate) use cuda::tests::{Traffic, copies_to_host, emulating};

#[cfg(test)]
mod tests;
