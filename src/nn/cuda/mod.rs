//! Our own kernels for CUDA: one `.cu` file per operation and beside it the Rust that launches it.
//!
//! The kernels are C++ that two compilers read: nvcc for cards, and g++ for the tests, which run the same text on a
//! CPU with the fibers of `emulation/`. A launch goes through [`launch::Launcher`], so the tests also cover grids, the
//! order of arguments and sizes. No kernel uses atomics: each result is written once, by one block, in a fixed order of
//! sums, and is the same from run to run.
//!
//! Activations have their channels last. Numbers that flow are bf16 or f32; weights of norms, statistics and sums are
//! f32.

pub(super) mod attention;
pub(super) mod channels;
pub(super) mod columns;
pub(super) mod geglu;
pub(super) mod group_norm;
pub(super) mod launch;
pub(super) mod layer_norm;
pub(super) mod optimiser;

#[cfg(test)]
mod tests;
