//! Pointwise activations: SiLU, GELU with the error function, CLIP's "quick" GELU, and gated GELU.

use candle_core::{D, Result, Tensor, bail};

use super::cpu::activation::{Activation, Geglu};
use super::{composed, cpu};

/// `x * sigmoid(x)`, any shape.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if cpu::serves(&[x]) { x.contiguous()?.apply_op1(Activation::Swish { slope: 1.0 }) } else { x.silu() }
}

/// `x * Phi(x)` with the error function, any shape; diffusers and CLIP call this `gelu`.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if cpu::serves(&[x]) { x.contiguous()?.apply_op1(Activation::Gelu) } else { x.gelu_erf() }
}

/// `x * sigmoid(1.702 x)`, any shape; the activation of OpenAI's CLIP.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if cpu::serves(&[x]) {
        x.contiguous()?.apply_op1(Activation::Swish { slope: QUICK as f32 })
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
    if cpu::serves(&[x]) {
        return x.contiguous()?.apply_op1(Geglu);
    }
    composed::apply1(composed::Geglu, x)
}

/// The slope in quick GELU, as in the CLIP code.
const QUICK: f64 = 1.702;
