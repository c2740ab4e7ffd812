//! Fused f32 kernels for the CPU, each a candle custom operation with its own backward.
//!
//! Three rules apply to every kernel. Work is split by shape alone, never by the number of threads, and partial sums
//! are added in a fixed order, so the result does not depend on the number of threads. Gradients are computed only for
//! tracked operands. Temporary buffers of a kernel come from [`operands::scratch`], one set per thread.

pub(super) mod activation;
pub(super) mod adamw;
pub(super) mod attention;
pub(super) mod blockwise;
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
