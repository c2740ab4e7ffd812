//! Layers with tested gradients; the CPU kernels stand behind them.
//!
//! candle's own fused layers cut the graph without a word (layer norm, softmax) or give wrong gradients
//! (nearest upsampling), so no module above this one calls them. Every layer here has two paths and
//! chooses by device and dtype: f32 on the CPU runs a fused kernel with its own backward (`cpu`),
//! anything else is composed from candle operations whose gradients are right.

mod activation;
mod attention;
mod conv;
mod cpu;
mod embedding;
mod linear;
mod norm;
pub mod optim;
mod upsample;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv::Conv2d;
pub use embedding::timestep_embedding;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use upsample::upsample_nearest_2x;

use candle_core::{DType, Result, Tensor};

/// Half precisions are widened for sums and exponentials; f32 and f64 stay what they are.
fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::BF16 | DType::F16 => DType::F32,
        other => other,
    }
}

/// The bias of a layer, or zeros that nobody differentiates.
fn or_zeros(bias: &Option<Tensor>, weight: &Tensor) -> Result<Tensor> {
    match bias {
        Some(bias) => bias.contiguous(),
        None => Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device()),
    }
}

/// Softmax over the last dimension from operations that differentiate. The maximum is only a shift,
/// so it is detached and costs nothing in backward.
fn softmax_last(x: &Tensor) -> Result<Tensor> {
    let last = x.rank() - 1;
    let exp = x.broadcast_sub(&x.detach().max_keepdim(last)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(last)?)
}

#[cfg(test)]
mod tests;
