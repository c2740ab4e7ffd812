//! Pointwise activations: SiLU, GELU with the error function, CLIP's "quick" GELU, and gated GELU.

use candle_core::{D, Result, Tensor, bail};

use super::cpu::activation::{Activation, Geglu};
use super::route::{self, Layer, Route};
use super::{composed, cuda, operation};

/// `x * sigmoid(x)`, any shape.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    match is_pointwise_on_cpu(x) {
        true => operation::apply(Activation::Swish { slope: 1.0 }, [x]),
        false => x.silu(),
    }
}

/// `x * Phi(x)` with the error function, any shape; diffusers and CLIP call this `gelu`.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if is_pointwise_on_cpu(x) { operation::apply(Activation::Gelu, [x]) } else { x.gelu_erf() }
}

/// `x * sigmoid(1.702 x)`, any shape; the activation of OpenAI's CLIP.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if is_pointwise_on_cpu(x) {
        operation::apply(Activation::Swish { slope: QUICK as f32 }, [x])
    } else {
        (x * QUICK)?.silu()? / QUICK
    }
}

/// Gated GELU: the last dimension contains value and gate, [.., 2n] -> [.., n] = value * gelu(gate).
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        bail!("geglu: the last dimension of {:?} must be even: value and gate", x.dims())
    }
    match route::of(Layer::Geglu, &[x], &[]) {
        Route::Cpu => operation::apply(Geglu, [x]),
        Route::Cuda => operation::apply(cuda::Geglu, [x]),
        Route::Composed => composed::apply("geglu", composed::Geglu, [x]),
    }
}

fn is_pointwise_on_cpu(x: &Tensor) -> bool {
    route::of(Layer::Pointwise, &[x], &[]) == Route::Cpu
}

/// The slope in quick GELU, as in the CLIP code.
const QUICK: f64 = 1.702;
