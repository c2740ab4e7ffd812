//! Scaled dot-product attention over heads, for self- and cross-attention and causal text.

use candle_core::{Result, Tensor, bail};

use super::cpu;
use super::{accumulation_dtype, softmax_last};

/// `softmax(q k^T / sqrt(d)) v` for each head.
///
/// Shapes: q [batch, n, heads*d], k and v [batch, m, heads*d] -> [batch, n, heads*d]. With `causal`,
/// position i sees positions up to i, and n must equal m.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
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
    if cpu::serves(&[q, k, v]) {
        let op = cpu::attention::Attention::new(heads, causal);
        return q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op);
    }
    composed(q, k, v, heads, causal)
}

/// Elements of the largest score matrix that the composed path makes at once (1 GiB in f32); beyond
/// it the queries are taken in slices.
const SCORE_ELEMENTS: usize = 1 << 28;

fn composed(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let (batch, n, width) = q.dims3()?;
    let (m, d) = (k.dim(1)?, width / heads);
    let split = |x: &Tensor| -> Result<Tensor> {
        x.reshape((batch, x.dim(1)?, heads, d))?.transpose(1, 2)?.contiguous()
    };
    let q = (split(q)? * (d as f64).sqrt().recip())?; // [batch, heads, n, d]
    let (k, v) = (split(k)?.transpose(2, 3)?.contiguous()?, split(v)?);
    let inner = accumulation_dtype(q.dtype());
    let rows = (SCORE_ELEMENTS / (batch * heads * m).max(1)).clamp(1, n.max(1));
    let mut slices = Vec::with_capacity(n.div_ceil(rows));
    for start in (0..n).step_by(rows) {
        let count = rows.min(n - start);
        let mut scores = q.narrow(2, start, count)?.contiguous()?.matmul(&k)?.to_dtype(inner)?;
        if causal {
            let mask: Vec<f32> = (start..start + count)
                .flat_map(|i| (0..m).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 }))
                .collect();
            let mask = Tensor::from_vec(mask, (count, m), scores.device())?.to_dtype(inner)?;
            scores = scores.broadcast_add(&mask)?;
        }
        slices.push(softmax_last(&scores)?.to_dtype(v.dtype())?.matmul(&v)?);
    }
    let out = if slices.len() == 1 { slices.remove(0) } else { Tensor::cat(&slices, 2)? };
    out.transpose(1, 2)?.contiguous()?.reshape((batch, n, width))
}
