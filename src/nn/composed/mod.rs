//! Operations composed of candle's own, for devices and types that have no kernel here, with backward passes of ours.
//!
//! Left to candle, each would keep a dozen tensors until backward, a convolution's gradient would take a kernel of one
//! thread per output, and attention would keep all scores. Here an operation keeps its operands and its output, and
//! makes the rest again. Weights may be of another type than what flows: they are brought to it inside, so that f32
//! weights are trained with bf16 activations and their gradients come back in f32.

mod attention;
mod conv;
mod geglu;
mod linear;
mod norm;
mod operation;

pub(super) use attention::Attention;
pub(super) use conv::Conv2d;
pub(super) use geglu::Geglu;
pub(super) use linear::Linear;
pub(super) use norm::Norm;
use operation::Composed;
pub(super) use operation::{apply1, apply3};
