//! Fused f32 kernels for the CPU, each an operation with its own gradients.
//!
//! Three rules apply to every kernel. Sums are split by shape alone, never by the number of threads, and their parts are
//! added in a fixed order; the rest of the work may be cut for as many threads as there are (`pieces`), so the result
//! does not depend on the number of threads. Gradients are computed only for
//! operands for which they are wanted. Temporary buffers of a kernel come from [`operands::scratch`], one set per thread.

pub(super) mod activation;
pub(super) mod adamw;
pub(super) mod attention;
pub(super) mod blockwise;
mod columns;
pub(super) mod concatenate;
pub(super) mod conv;
mod conv_gradient;
mod direct;
mod gemm;
pub(super) mod group_norm;
mod halves;
pub(super) mod layer_norm;
pub(super) mod linear;
mod math;
mod operands;
mod pieces;
mod reduce;
mod simd;
pub(super) mod sum;
pub(super) mod transpose;
pub(super) mod upsample;
mod weight;
mod window;
mod winograd;

pub(super) use operands::{elements, serves, serves_weighted};
use operands::{filled, scratch};

#[cfg(test)]
mod tests;
