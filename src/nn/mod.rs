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
mod upsample;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv::Conv2d;
pub use difference::mean_square_difference;
pub use embedding::timestep_embedding;
pub use gradient::backward;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use upsample::upsample_nearest_2x;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;

/// Raised when the layers give other bytes for the same operands; every stage that computes then runs again.
/// 1: columns everywhere. 2: Winograd's and the direct way, attention by blocks of keys, sums in strands.
pub const VERSION: u32 = 2;

/// Half precisions are widened for sums and exponentials; f32 and f64 stay what they are.
pub fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::BF16 | DType::F16 => DType::F32,
        other => other,
    }
}

/// The type of what flows between layers whose weights are of `dtype`: CPUs compute in f32 and widen half-precision
/// weights as they go, so that a model takes no more memory than its file.
pub fn activation_dtype(dtype: DType, device: &Device) -> DType {
    if device.is_cpu() { accumulation_dtype(dtype) } else { dtype }
}

/// Reads a tensor that is added or multiplied elementwise, in the type of what flows through the layer.
pub fn pointwise(vb: &VarBuilder, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
    vb.get(shape.into(), name)?.to_dtype(activation_dtype(vb.dtype(), vb.device()))
}

/// The bias of a layer, or zeros that nobody differentiates.
fn or_zeros(bias: &Option<Tensor>, weight: &Tensor, dtype: DType) -> Result<Tensor> {
    match bias {
        Some(bias) => bias.contiguous(),
        None => Tensor::zeros(weight.dim(0)?, dtype, weight.device()),
    }
}

#[cfg(test)]
mod tests;
