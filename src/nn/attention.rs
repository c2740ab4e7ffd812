//! Scaled dot-product attention with several heads, for self-attention, cross-attention and causal text.

use candle_core::{DType, Result, Tensor, bail};

use super::route::{self, Layer, Route};
use super::{composed, cpu, cuda, operation};

/// `softmax(q k^T / sqrt(d)) v` for each head.
///
/// Shapes: q [batch, n, heads*d], k and v [batch, m, heads*d] -> [batch, n, heads*d]. With `causal`,
/// position i sees positions up to i, and n must equal m.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    attention_of(DType::F32, q, k, v, heads, causal)
}

/// [`attention`] in a layer whose weights are of type `weights`: with bf16, a processor that multiplies bf16 rounds the operands of
/// both products too, as it does in the other products of the layer.
pub fn attention_of(
    weights: DType,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    causal: bool,
) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let m = k.dim(1)?;
    if k.dims() != [batch, m, width] || v.dims() != k.dims() {
        bail!(
            "attention: query {:?} needs key and value [{batch}, m, {width}], found {:?} and {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        )
    }
    if heads == 0 || !width.is_multiple_of(heads) {
        bail!("attention: {heads} heads do not divide the width of the query {:?}", q.dims())
    }
    if causal && n != m {
        bail!("attention: causal needs as many queries as keys, found {:?} and {:?}", q.dims(), k.dims())
    }
    match route::of(Layer::Attention { head: width / heads }, &[q, k, v], &[]) {
        Route::Cpu => {
            let op = cpu::attention::Attention::new(heads, causal, weights);
            operation::apply(op, [q, k, v])
        }
        Route::Cuda => operation::apply(cuda::Attention::new(heads, causal), [q, k, v]),
        Route::Composed => composed::apply("attention", composed::Attention { heads, causal }, [q, k, v]),
    }
}
