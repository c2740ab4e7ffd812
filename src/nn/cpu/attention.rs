//! Attention by blocks of queries: the scores of a block live in one buffer per thread, and backward
//! makes them again (Rabe and Staats 2021), so memory grows with n + m and not with n x m.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::gemm::{Matrix, Write, product};
use super::math::exp;
use super::reduce::{dot, max, sum};
use super::simd::widest;
use super::{elements, for_tracked, operand, scratch};

/// Operands: q [batch, n, heads*d], k and v [batch, m, heads*d].
pub(in crate::nn) struct Attention {
    pub(in crate::nn) heads: usize,
    pub(in crate::nn) causal: bool,
}

/// Elements of one block of scores: with its operands it stays in a second-level cache.
const SCORE_ELEMENTS: usize = 1 << 15;

struct Geometry {
    heads: usize,
    causal: bool,
    queries: usize,
    keys: usize,
    /// heads * d
    width: usize,
    /// d
    dim: usize,
}

impl Attention {
    fn geometry(&self, q: &Shape, k: &Shape) -> Result<Geometry> {
        let ((_, queries, width), (_, keys, _)) = (q.dims3()?, k.dims3()?);
        Ok(Geometry { heads: self.heads, causal: self.causal, queries, keys, width, dim: width / self.heads })
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let geometry = self.geometry(q_layout.shape(), k_layout.shape())?;
        let out = geometry.attend(
            operand(self.name(), q, q_layout)?,
            operand(self.name(), k, k_layout)?,
            operand(self.name(), v, v_layout)?,
        );
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let geometry = self.geometry(q.shape(), k.shape())?;
        let gradient = gradient.contiguous()?;
        let inputs = Inputs {
            q: &elements(q)?,
            k: &elements(k)?,
            v: &elements(v)?,
            out: &elements(out)?,
            gradient: &elements(&gradient)?,
        };
        let wanted = [q.track_op(), k.track_op(), v.track_op()];
        let heads: Vec<[Vec<f32>; 3]> = (0..q.dim(0)? * self.heads)
            .into_par_iter()
            .map(|head| geometry.gradients_of(head, &inputs, wanted))
            .collect();
        Ok((
            for_tracked(q, || geometry.join_heads(&heads, 0, geometry.queries))?,
            for_tracked(k, || geometry.join_heads(&heads, 1, geometry.keys))?,
            for_tracked(v, || geometry.join_heads(&heads, 2, geometry.keys))?,
        ))
    }
}

/// What backward reads; all in the layout of the operands.
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    gradient: &'a [f32],
}

impl Geometry {
    /// Queries of one block.
    fn rows(&self) -> usize {
        (SCORE_ELEMENTS / self.keys).clamp(16, 256).min(self.queries)
    }

    /// Keys that a block of queries ending before `end` can see.
    fn seen(&self, end: usize) -> usize {
        if self.causal { end } else { self.keys }
    }

    /// One head of one sample out of [batch, length, width].
    fn head<'a>(&self, data: &'a [f32], length: usize, batch: usize, head: usize) -> Matrix<'a> {
        Matrix::rows(data, self.width).from(batch * length, head * self.dim)
    }

    fn attend(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let (rows, width) = (self.rows(), self.width);
        let mut out = vec![0.0; q.len()];
        let samples = out.par_chunks_mut(self.queries * width).enumerate();
        let blocks = samples.flat_map(|(batch, out)| {
            out.par_chunks_mut(rows * width).enumerate().map(move |(block, out)| (batch, block * rows, out))
        });
        blocks.for_each(|(batch, start, out)| {
            let count = out.len() / width;
            scratch(count * self.keys, |scores| {
                for head in 0..self.heads {
                    let k = self.head(k, self.keys, batch, head);
                    let seen = self.weights(self.head(q, self.queries, batch, head), k, start, count, scores);
                    let v = self.head(v, self.keys, batch, head);
                    let weights = Matrix::rows(scores, seen);
                    let out = &mut out[head * self.dim..];
                    product([count, self.dim, seen], weights, v, out, width, Write::Set, 1.0);
                }
            });
        });
        out
    }

    /// Attention weights of the queries `start..start + count` -> `weights` [count, seen]; returns `seen`.
    fn weights(&self, q: Matrix, k: Matrix, start: usize, count: usize, weights: &mut [f32]) -> usize {
        let seen = self.seen(start + count);
        let scale = (self.dim as f32).sqrt().recip();
        let shape = [count, seen, self.dim];
        product(shape, q.from(start, 0), k.transposed(), weights, seen, Write::Set, scale);
        widest(
            #[inline(always)]
            || {
                for (query, row) in weights.chunks_exact_mut(seen).take(count).enumerate() {
                    let (row, hidden) = row.split_at_mut(if self.causal { start + query + 1 } else { seen });
                    hidden.fill(0.0);
                    let most = max(row);
                    row.iter_mut().for_each(|score| *score = exp(*score - most));
                    let share = 1.0 / sum(row);
                    row.iter_mut().for_each(|weight| *weight *= share);
                }
            },
        );
        seen
    }

    /// Gradients of q, k and v for one head of one sample, each [length, d]; empty where not wanted.
    ///
    /// With weights P, output O and its gradient G: dV = P^T G, dS = P (G V^T - rowsum(G O)), and with
    /// the scale s of the scores dQ = s dS K, dK = s dS^T Q.
    fn gradients_of(&self, index: usize, inputs: &Inputs, wanted: [bool; 3]) -> [Vec<f32>; 3] {
        let (batch, head, d) = (index / self.heads, index % self.heads, self.dim);
        let lengths = [self.queries, self.keys, self.keys];
        let mut gradients = [0, 1, 2].map(|i| vec![0.0; if wanted[i] { lengths[i] * d } else { 0 }]);
        let [dq, dk, dv] = &mut gradients;
        let of_queries = |data| self.head(data, self.queries, batch, head);
        let (q, out, g) = (of_queries(inputs.q), of_queries(inputs.out), of_queries(inputs.gradient));
        let (k, v) =
            (self.head(inputs.k, self.keys, batch, head), self.head(inputs.v, self.keys, batch, head));
        let (rows, scale) = (self.rows(), (d as f32).sqrt().recip());
        scratch(2 * rows * self.keys, |buffer| {
            let (weights, slopes) = buffer.split_at_mut(rows * self.keys);
            for start in (0..self.queries).step_by(rows) {
                let count = rows.min(self.queries - start);
                let seen = self.weights(q, k, start, count, weights);
                let (g, out) = (g.from(start, 0), out.from(start, 0));
                if wanted[2] {
                    let weights = Matrix::rows(weights, seen).transposed();
                    product([seen, d, count], weights, g, dv, d, Write::Add, 1.0);
                }
                if !wanted[0] && !wanted[1] {
                    continue;
                }
                product([count, seen, d], g, v.transposed(), slopes, seen, Write::Set, 1.0);
                widest(
                    #[inline(always)]
                    || {
                        let lines = slopes.chunks_exact_mut(seen).zip(weights.chunks_exact(seen)).take(count);
                        for (query, (slopes, weights)) in lines.enumerate() {
                            let line = query * self.width..query * self.width + d;
                            let common = dot(&g.data[line.clone()], &out.data[line]);
                            let pairs = slopes.iter_mut().zip(weights);
                            pairs.for_each(|(slope, weight)| *slope = weight * (*slope - common));
                        }
                    },
                );
                let slopes = Matrix::rows(slopes, seen);
                if wanted[0] {
                    product([count, d, seen], slopes, k, &mut dq[start * d..], d, Write::Set, scale);
                }
                if wanted[1] {
                    let q = q.from(start, 0);
                    product([seen, d, count], slopes.transposed(), q, dk, d, Write::Add, scale);
                }
            }
        });
        gradients
    }

    /// One of the three gradients of all heads, back in the layout [batch, length, heads * d].
    fn join_heads(&self, heads: &[[Vec<f32>; 3]], which: usize, length: usize) -> Vec<f32> {
        let mut joined = vec![0.0; heads.len() * length * self.dim];
        let samples = joined.par_chunks_mut(length * self.width).zip(heads.par_chunks(self.heads));
        samples.for_each(|(joined, heads)| {
            for (row, joined) in joined.chunks_exact_mut(self.width).enumerate() {
                for (joined, head) in joined.chunks_exact_mut(self.dim).zip(heads) {
                    joined.copy_from_slice(&head[which][row * self.dim..][..self.dim]);
                }
            }
        });
        joined
    }
}
