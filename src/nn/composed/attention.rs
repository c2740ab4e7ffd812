//! Attention in slices of queries: the scores of a slice are computed, used and dropped, and computed again in
//! backward.

use candle_core::{D, Result, Tensor};

use crate::nn::accumulation_dtype;
use crate::nn::operation::{Operation, Output};

/// Operands: q [batch, n, heads*d], k and v [batch, m, heads*d].
pub(in crate::nn) struct Attention {
    pub(in crate::nn) heads: usize,
    pub(in crate::nn) causal: bool,
}

/// The most scores at one time, 256 MiB in f32; about four such tensors live together. A picture of 1024x1024 has 2^28 in the middle
/// of an autoencoder.
const SCORE_ELEMENTS: usize = 1 << 26;

/// Slices of the queries: the start and the length of each.
fn slices(q: &Tensor, keys: usize) -> Result<impl Iterator<Item = (usize, usize)>> {
    let (batch, heads, n, _) = q.dims4()?;
    Ok(slices_of(n, batch * heads * keys))
}

/// The same for `n` rows of queries with so many scores for each.
fn slices_of(n: usize, scores: usize) -> impl Iterator<Item = (usize, usize)> {
    let rows = (SCORE_ELEMENTS / scores.max(1)).clamp(1, n.max(1));
    (0..n).step_by(rows).map(move |start| (start, rows.min(n - start)))
}

impl Attention {
    /// [batch, length, heads*d] -> [batch, heads, length, d]
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        x.reshape((batch, length, self.heads, width / self.heads))?.transpose(1, 2)?.contiguous()
    }

    /// The attention weights of the queries starting at `start`, [batch, heads, count, m] in the accumulation type.
    fn weights(&self, q: &Tensor, k: &Tensor, start: usize) -> Result<Tensor> {
        let (_, _, count, d) = q.dims4()?;
        // Scaled before the product: its result has the type of the operands, and f16 ends at 65504.
        let q = (q * (d as f64).sqrt().recip())?;
        let mut scores = q.matmul(&k.transpose(2, 3)?)?.to_dtype(accumulation_dtype(q.dtype()))?;
        if self.causal {
            let m = k.dim(2)?;
            let mask: Vec<f32> = (start..start + count)
                .flat_map(|i| (0..m).map(move |j| if j > i { f32::NEG_INFINITY } else { 0.0 }))
                .collect();
            let mask = Tensor::from_vec(mask, (count, m), scores.device())?.to_dtype(scores.dtype())?;
            scores = scores.broadcast_add(&mask)?;
        }
        let exponentials = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
    }
}

/// [batch, heads, length, d] -> [batch, length, heads*d]
fn join(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.contiguous()?.flatten_from(2)
}

impl Operation<3> for Attention {
    fn forward(&self, operands: &[Tensor; 3]) -> Result<Output> {
        let [q, k, v] = operands;
        let (q, k, v) = (self.split(q)?, self.split(k)?, self.split(v)?);
        let out = slices(&q, k.dim(2)?)?.map(|(start, count)| {
            let q = q.narrow(2, start, count)?.contiguous()?;
            self.weights(&q, &k, start)?.to_dtype(v.dtype())?.matmul(&v)
        });
        Ok(Output::Tensor(join(&Tensor::cat(&out.collect::<Result<Vec<_>>>()?, 2)?)?))
    }

    /// With weights P, output O and its gradient G: dV = P^T G, dS = P (G V^T - rowsum(G O)), and with
    /// the scale s of the scores dQ = s dS K, dK = s dS^T Q.
    fn backward(
        &self,
        operands: &[Tensor; 3],
        output: &Tensor,
        gradient: &Tensor,
        wanted: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let [q, k, v] = operands;
        let (q, k, v) = (self.split(q)?, self.split(k)?, self.split(v)?);
        let (output, gradient) = (self.split(output)?, self.split(gradient)?);
        let scale = (q.dim(3)? as f64).sqrt().recip();
        let mut of_q = Vec::new();
        let [mut of_k, mut of_v] = [None, None];
        for (start, count) in slices(&q, k.dim(2)?)? {
            let part = |x: &Tensor| x.narrow(2, start, count)?.contiguous();
            let (q, g) = (part(&q)?, part(&gradient)?);
            let weights = self.weights(&q, &k, start)?;
            if wanted[2] {
                add(&mut of_v, weights.transpose(2, 3)?.to_dtype(g.dtype())?.contiguous()?.matmul(&g)?)?;
            }
            if !wanted[0] && !wanted[1] {
                continue;
            }
            let wide = |x: &Tensor| x.to_dtype(weights.dtype());
            let common = (wide(&g)? * wide(&part(&output)?)?)?.sum_keepdim(D::Minus1)?;
            let slopes = wide(&g.matmul(&v.transpose(2, 3)?)?)?.broadcast_sub(&common)?;
            let slopes = ((weights * slopes)? * scale)?.to_dtype(q.dtype())?;
            if wanted[0] {
                of_q.push(slopes.matmul(&k)?);
            }
            if wanted[1] {
                add(&mut of_k, slopes.transpose(2, 3)?.contiguous()?.matmul(&q)?)?;
            }
        }
        let of_q = if wanted[0] { Some(Tensor::cat(&of_q, 2)?) } else { None };
        let join = |x: Option<Tensor>| x.map(|x| join(&x)).transpose();
        Ok([join(of_q)?, join(of_k)?, join(of_v)?])
    }
}

/// Adds the contribution of a slice to the sum, in the accumulation type.
fn add(sum: &mut Option<Tensor>, share: Tensor) -> Result<()> {
    let share = share.to_dtype(accumulation_dtype(share.dtype()))?;
    *sum = Some(match sum.take() {
        Some(sum) => (sum + share)?,
        None => share,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::nn::composed::apply;

    #[test]
    fn slices_bound_the_scores() {
        // An autoencoder for a picture of 1024x1024, one of 2040x1016, and more keys than a slice may have scores.
        for (n, scores) in [(16_384, 16_384), (32_385, 32_385), (3, SCORE_ELEMENTS + 1)] {
            let slices: Vec<_> = slices_of(n, scores).collect();
            assert!(
                slices.iter().all(|&(_, rows)| rows == 1 || rows * scores <= SCORE_ELEMENTS),
                "{slices:?}"
            );
            assert_eq!(slices.iter().map(|(_, rows)| rows).sum::<usize>(), n);
            let ends = slices.iter().map(|(start, rows)| start + rows);
            assert!(ends.zip(&slices[1..]).all(|(end, (start, _))| end == *start), "{slices:?}");
        }
        assert_eq!(slices_of(16_384, 16_384).count(), 4);
    }

    #[test]
    fn large_queries_and_keys_do_not_overflow_in_f16() -> Result<()> {
        // 64 products of 40 * 40 are 102400, which f16 cannot hold; divided by the square root of 64 they are 12800.
        let large = Tensor::full(40f32, (1, 2, 64), &Device::Cpu)?.to_dtype(DType::F16)?;
        let values = Tensor::cat(
            &[
                Tensor::zeros((1, 1, 64), DType::F32, &Device::Cpu)?,
                Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?,
            ],
            1,
        )?;
        let op = Attention { heads: 1, causal: false };
        let output = apply("attention", op, [&large, &large, &values.to_dtype(DType::F16)?])?;
        let output = output.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        assert!(output.iter().all(|value| *value == 0.5), "{output:?}");
        Ok(())
    }
}
