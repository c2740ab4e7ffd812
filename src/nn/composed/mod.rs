//! Operations composed of candle's own, with our backward passes, for devices and types without kernels of ours.
//!
//! With candle's backward, each operation would keep a dozen tensors, a convolution's gradient would use a kernel with
//! one thread per output, and attention would keep all scores. Here an operation keeps only its operands and its
//! output, and recomputes the rest. Weights can have a type other than that of the activations: they are converted
//! inside the operation, so that f32 weights are trained with bf16 activations and their gradients are f32.

mod attention;
mod composition;
mod conv;
mod geglu;
mod linear;
mod norm;

pub(super) use attention::Attention;
pub(super) use composition::apply;
pub(super) use conv::Conv2d;
pub(super) use geglu::Geglu;
pub(super) use linear::Linear;
pub(super) use norm::Norm;
