//! What computes a layer: the table of devices, types and layers.
//!
//! | device | activations | layer | computed by |
//! |---|---|---|---|
//! | CPU | f32 | all | kernels of `cpu` |
//! | GPU | bf16, f16 | attention with heads of 40, 64, 80 or 160, without gradients also of 512 | kernels of `cuda` |
//! | GPU | bf16, f16, f32 | products, norms, gated GELU, sums, concatenation, mean-square difference | kernels of `cuda` |
//! | any | any other | any other | a composition of candle's operations |
//!
//! f16 has kernels where no gradients are wanted. Weights can have a type of their own: f32 or half precision on a CPU, f32 or bf16 on a GPU. On processors with AVX-512 BF16,
//! products of bf16 weights and attention beside them multiply bf16, with sums in f32 (`cpu::halves`).

use candle_core::{DType, Tensor};

use super::{cpu, cuda, tape};

/// What computes a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The kernels of `cpu`.
    Cpu,
    /// The kernels of `cuda`.
    Cuda,
    /// candle's operations.
    Composed,
}

/// A layer, as far as it decides what computes it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    /// With heads of this size.
    Attention { head: usize },
    /// Convolution or linear layer.
    Product,
    /// Group norm or layer norm.
    Norm,
    /// Gated GELU.
    Geglu,
    /// Mean-square difference.
    Difference,
    /// A sum of two, or one after the other.
    Rows,
    /// Another function of single elements or pixels.
    Pointwise,
}

/// What computes `layer` with these activations and weights.
pub(super) fn of(layer: Layer, activations: &[&Tensor], weights: &[&Tensor]) -> Route {
    if activations.iter().all(|tensor| cuda::has_kernels(tensor.device())) {
        return on_card(layer, activations, weights);
    }
    let weights_fit = match layer {
        Layer::Product => weights.iter().all(|weight| cpu::serves_weighted(activations[0], weight)),
        _ => cpu::serves(weights),
    };
    if cpu::serves(activations) && weights_fit { Route::Cpu } else { Route::Composed }
}

fn on_card(layer: Layer, activations: &[&Tensor], weights: &[&Tensor]) -> Route {
    let all = |tensors: &[&Tensor], types: &[DType]| tensors.iter().all(|t| types.contains(&t.dtype()));
    let gradients = tape::records() && activations.iter().chain(weights).any(|tensor| tape::tracks(tensor));
    let types: &[DType] = match layer {
        Layer::Attention { head } if cuda::has_head(head, gradients) => &[DType::BF16, DType::F16],
        Layer::Product | Layer::Norm | Layer::Geglu | Layer::Difference | Layer::Rows => {
            &[DType::BF16, DType::F16, DType::F32]
        }
        Layer::Attention { .. } | Layer::Pointwise => &[],
    };
    let same = activations.iter().all(|tensor| tensor.dtype() == activations[0].dtype());
    let weights_fit = match (activations[0].dtype(), layer) {
        (DType::F16, _) if gradients => false,
        (DType::F16, Layer::Product) => all(weights, &[DType::F16]),
        (DType::F16, _) => all(weights, &[DType::F16, DType::F32]),
        _ => all(weights, &[DType::BF16, DType::F32]),
    };
    if same && weights_fit && all(activations, types) { Route::Cuda } else { Route::Composed }
}
