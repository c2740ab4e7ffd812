//! Our own kernels for CUDA: one `.cu` file per operation and beside it the Rust that launches it.
//!
//! The kernels are C++ that two compilers read: nvcc for cards, and g++ for the tests, which run the same text on a
//! CPU with the fibers of `emulation/`. A launch goes through [`launch::Launcher`], so the tests also cover grids, the
//! order of arguments and sizes. No kernel uses atomics: each result is written once, by one block, in a fixed order of
//! sums, and is the same from run to run.
//!
//! Activations have their channels last. Numbers that flow are bf16 or f32, and f16 where no gradients are wanted; weights of norms, statistics and sums are
//! f32.

mod address;
mod array;
#[cfg(feature = "cuda")]
mod arriving;
mod attention;
#[cfg(feature = "cuda")]
mod card;
mod channels;
mod columns;
mod counted;
mod device;
mod epilogue;
#[cfg(feature = "cuda")]
mod failure;
mod geglu;
mod group_norm;
mod launch;
mod layer_norm;
mod layers;
mod machine;
mod optimiser;
mod product;
#[cfg(feature = "cuda")]
mod sending;

pub(super) use array::Array;
pub(crate) use array::address_of;
pub(super) use attention::has as has_head;
pub(super) use counted::Counter;
pub(super) use device::{copy_to_host, has_kernels, send};
pub(super) use epilogue::bias_gradient;
pub(super) use layers::{
    Attention, Concatenate, Conv2d, Convolution, Difference, GatedOnto, Geglu, Linear, Norm, Normalise, Onto,
    Rows, add, attend, attend_backward, concatenate, counted_update, difference, difference_gradient, gate,
    gate_gradient, gated_gradient, input_gradient, norm_and_clip, project, split, sum, update,
    weight_gradient,
};
pub use layers::{Moments, Trained};
pub(super) use machine::{Arriving, Machine};

// The emulation switches stacks in x86-64's assembly.
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
pub(super) mod tests;
