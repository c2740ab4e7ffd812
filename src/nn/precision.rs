//! The types in which layers compute, and how their small parameters are converted to them.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::VarBuilder;

use super::cuda;

/// Half precision is widened for sums and exponentials; f32 and f64 are kept.
pub fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::BF16 | DType::F16 => DType::F32,
        other => other,
    }
}

/// The type of activations for weights of type `dtype`: CPUs keep f32 and widen half-precision weights on the fly, so that
/// a model takes no more memory than its file. Products of bf16 weights round their inputs on processors that multiply bf16.
pub fn activation_dtype(dtype: DType, device: &Device) -> DType {
    if device.is_cpu() && !cuda::has_kernels(device) { accumulation_dtype(dtype) } else { dtype }
}

/// Reads a tensor that is added or multiplied elementwise, in the type of the layer's activations.
pub fn pointwise(vb: &VarBuilder, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
    vb.get(shape.into(), name)?.to_dtype(activation_dtype(vb.dtype(), vb.device()))
}

/// Reads a bias, or the weight of a norm: widened from half precision on every device, because layers add and multiply in full
/// precision.
pub(super) fn widened(vb: &VarBuilder, size: usize, name: &str) -> Result<Tensor> {
    vb.get(size, name)?.to_dtype(accumulation_dtype(vb.dtype()))
}

/// The bias of a layer, or untracked zeros.
pub(super) fn or_zeros(bias: &Option<Tensor>, weight: &Tensor, dtype: DType) -> Result<Tensor> {
    match bias {
        Some(bias) => bias.contiguous(),
        None => Tensor::zeros(weight.dim(0)?, dtype, weight.device()),
    }
}
