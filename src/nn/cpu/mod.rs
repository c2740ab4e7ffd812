//! Fused f32 kernels for the CPU, each a candle custom operation with its own backward.
//!
//! Three rules hold in every kernel. Work is cut by shape alone, never by the number of threads, and
//! partial sums are added in a fixed order, so any number of threads gives the same bytes. Nothing is
//! computed for an operand that is not tracked. Buffers that a kernel needs only while it runs come
//! from [`operands::scratch`], one set per thread.

pub(super) mod activation;
pub(super) mod adamw;
pub(super) mod attention;
mod columns;
pub(super) mod conv;
mod conv_gradient;
mod direct;
mod gemm;
pub(super) mod group_norm;
pub(super) mod layer_norm;
pub(super) mod linear;
mod math;
mod operands;
mod reduce;
mod simd;
pub(super) mod upsample;
mod weight;
mod winograd;

use operands::{elements, filled, for_tracked, operand, scratch};
pub(super) use operands::{serves, serves_weighted};

#[cfg(test)]
mod tests;
