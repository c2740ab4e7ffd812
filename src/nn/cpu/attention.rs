//! Attention that never stores all scores: queries and keys are processed in blocks, and a running maximum and sum per
//! query keep the softmax exact (Dao et al. 2022, FlashAttention, algorithms 1 and 4). Forward stores the logarithms of
//! the sums, from which backward recomputes the weights, so memory grows with n + m instead of n x m.

use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{DType, Result, Shape, Tensor};
use pulp::{Arch, Simd};
use rayon::prelude::*;

use super::gemm::{Matrix, Write, product};
use super::halves::{Head, Seen, Unit};
use super::math::exp;
use super::reduce::{dot, max, sum};
use super::simd::widest;
use super::transpose::transpose;
use super::{elements, filled, scratch};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Operands: q [batch, n, heads*d], k and v [batch, m, heads*d].
pub(in crate::nn) struct Attention {
    heads: usize,
    causal: bool,
    /// Multiplies scores and values in bf16, if the layer does.
    unit: Option<Unit>,
    /// log(sum(exp(scores))) of each query, [batch, heads, n].
    log_sums: OnceLock<Vec<f32>>,
}

/// Queries and keys per block: the scores of a block fit in the L2 cache.
const QUERIES: usize = 256;
const KEYS: usize = 256;

struct Geometry {
    heads: usize,
    causal: bool,
    unit: Option<Unit>,
    queries: usize,
    keys: usize,
    /// heads * d
    width: usize,
    /// d
    dim: usize,
}

impl Attention {
    /// For a layer whose weights are of type `weights`.
    pub(in crate::nn) fn new(heads: usize, causal: bool, weights: DType) -> Self {
        let unit = if weights == DType::BF16 { Unit::detect() } else { None };
        Self { heads, causal, unit, log_sums: OnceLock::new() }
    }

    fn geometry(&self, q: &Shape, k: &Shape) -> Result<Geometry> {
        let ((_, queries, width), (_, keys, _)) = (q.dims3()?, k.dims3()?);
        let Self { heads, causal, unit, .. } = *self;
        Ok(Geometry { heads, causal, unit, queries, keys, width, dim: width / heads })
    }
}

impl Operation<3> for Attention {
    fn forward(&self, [q, k, v]: &[Tensor; 3]) -> Result<Output> {
        let geometry = self.geometry(q.shape(), k.shape())?;
        let (out, log_sums) = geometry.attend(&elements(q)?, &elements(k)?, &elements(v)?);
        self.log_sums.set(log_sums).expect("BUG: an operation ran twice");
        Ok(Output::numbers(out, q.shape()))
    }

    fn backward(
        &self,
        [q, k, v]: &[Tensor; 3],
        out: &Tensor,
        gradient: &Tensor,
        [of_q, of_k, of_v]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let geometry = self.geometry(q.shape(), k.shape())?;
        let (k_data, v_data) = (elements(k)?, elements(v)?);
        let inputs = Inputs {
            q: &elements(q)?,
            k: &k_data,
            keys: &geometry.transpose(&k_data),
            values: &geometry.transpose(&v_data),
            out: &elements(out)?,
            gradient: &elements(gradient)?,
            log_sums: self.log_sums.get().expect("BUG: backward ran before forward"),
        };
        let heads: Vec<[Vec<f32>; 3]> = (0..q.dim(0)? * self.heads)
            .into_par_iter()
            .map(|head| geometry.gradients_of(head, &inputs, [of_q, of_k, of_v]))
            .collect();
        Ok([
            gradient_of(q, of_q, || geometry.join_heads(&heads, 0, geometry.queries))?,
            gradient_of(k, of_k, || geometry.join_heads(&heads, 1, geometry.keys))?,
            gradient_of(v, of_v, || geometry.join_heads(&heads, 2, geometry.keys))?,
        ])
    }
}

/// The inputs of backward, in the layout of the operands unless stated otherwise.
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    /// k and v as [batch, heads * d, m].
    keys: &'a [f32],
    values: &'a [f32],
    out: &'a [f32],
    gradient: &'a [f32],
    log_sums: &'a [f32],
}

impl Geometry {
    /// Number of keys visible to the queries before `end`.
    fn seen(&self, end: usize) -> usize {
        if self.causal { end } else { self.keys }
    }

    /// One head of one sample of [batch, length, heads * d] -> [length, d].
    fn head<'a>(&self, data: &'a [f32], length: usize, batch: usize, head: usize) -> Matrix<'a> {
        Matrix::rows(data, self.width).from(batch * length, head * self.dim)
    }

    /// One head of one sample of [batch, heads * d, m] -> [d, m].
    fn transposed_head<'a>(&self, data: &'a [f32], batch: usize, head: usize) -> Matrix<'a> {
        Matrix::rows(data, self.keys).from(batch * self.width + head * self.dim, 0)
    }

    /// [batch, m, heads * d] -> [batch, heads * d, m], so that the products of many blocks read contiguous rows.
    fn transpose(&self, data: &[f32]) -> Vec<f32> {
        transpose(data, self.keys, self.width)
    }

    /// The outputs, and the logarithms of the sums.
    fn attend(&self, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (width, rows) = (self.width, QUERIES.min(self.queries));
        let keys = self.transpose(k);
        let mut log_sums = vec![0.0; q.len() / self.dim];
        let out = filled(q.len(), |out| {
            let samples = out.chunks_mut(self.queries * width);
            for (batch, (out, log_sums)) in
                samples.zip(log_sums.chunks_mut(self.heads * self.queries)).enumerate()
            {
                let head_of =
                    |head| (self.transposed_head(&keys, batch, head), self.head(v, self.keys, batch, head));
                let packed: Option<Vec<Head>> = self.unit.map(|unit| {
                    let heads = (0..self.heads).into_par_iter().map(head_of);
                    heads.map(|(k, v)| Head::new(unit, k, v, [self.keys, self.dim])).collect()
                });
                let attend = |(block, out): (usize, &mut [f32])| {
                    let (start, count) = (block * rows, out.len() / width);
                    let attend = |head| {
                        let q = self.head(q, self.queries, batch, head).from(start, 0);
                        match &packed {
                            Some(heads) => self.attend_halves(q, &heads[head], start, count),
                            None => self.attend_block(q, head_of(head), start, count),
                        }
                    };
                    let heads: Vec<_> = (0..self.heads).into_par_iter().map(attend).collect();
                    for (row, out) in out.chunks_exact_mut(width).enumerate() {
                        for (out, (head, _)) in out.chunks_exact_mut(self.dim).zip(&heads) {
                            out.copy_from_slice(&head[row * self.dim..][..self.dim]);
                        }
                    }
                    (start, heads)
                };
                let blocks: Vec<_> = out.par_chunks_mut(rows * width).enumerate().map(attend).collect();
                for (start, heads) in blocks {
                    for (log_sums, (_, of_block)) in log_sums.chunks_mut(self.queries).zip(heads) {
                        log_sums[start..][..of_block.len()].copy_from_slice(&of_block);
                    }
                }
            }
        });
        (out, log_sums)
    }

    /// The `count` queries from `start` on, [count, d], of one head: outputs [count, d] and logarithms of sums [count].
    fn attend_block(
        &self,
        q: Matrix,
        (k, v): (Matrix, Matrix),
        start: usize,
        count: usize,
    ) -> (Vec<f32>, Vec<f32>) {
        let d = self.dim;
        self.attended(count, |Seen { most, total, out }| {
            scratch(count * KEYS, |scores| {
                let seen = self.seen(start + count);
                for first in (0..seen).step_by(KEYS) {
                    let keys = KEYS.min(seen - first);
                    self.scores(q, k, start, count, first..first + keys, scores);
                    weigh(&mut scores[..count * keys], most, total, out);
                    let weights = Matrix::rows(scores, keys);
                    product([count, d, keys], weights, v.from(first, 0), out, d, Write::Add, 1.0);
                }
            });
        })
    }

    /// The same with products in bf16.
    fn attend_halves(&self, q: Matrix, head: &Head, start: usize, count: usize) -> (Vec<f32>, Vec<f32>) {
        self.attended(count, |seen| {
            head.attend(q, count, self.seen(start + count), seen, |[queries, keys], scores| {
                self.hide(start + queries.start, keys, scores);
            });
        })
    }

    /// Outputs and logarithms of sums from what `attend` sees.
    fn attended(&self, count: usize, attend: impl FnOnce(Seen)) -> (Vec<f32>, Vec<f32>) {
        let d = self.dim;
        let (mut out, mut most, mut total) =
            (vec![0.0; count * d], vec![f32::NEG_INFINITY; count], vec![0.0; count]);
        attend(Seen { most: &mut most, total: &mut total, out: &mut out });
        for (out, total) in out.chunks_exact_mut(d).zip(&total) {
            out.iter_mut().for_each(|out| *out /= total);
        }
        let log_sums = most.iter().zip(&total).map(|(most, total)| most + total.ln()).collect();
        (out, log_sums)
    }

    /// `q k^T / sqrt(d)` for the `count` queries from `start` on, [count, d], and a range of keys -> [count, keys].
    fn scores(
        &self,
        q: Matrix,
        k: Matrix,
        start: usize,
        count: usize,
        keys: Range<usize>,
        scores: &mut [f32],
    ) {
        let (shape, scale) = ([count, keys.len(), self.dim], (self.dim as f32).sqrt().recip());
        let (k, width) = (k.from(0, keys.start), keys.len());
        match self.unit {
            Some(unit) => unit.product(shape, q, k, (&mut *scores, width), Write::Set, scale),
            None => product(shape, q, k, scores, width, Write::Set, scale),
        }
        self.hide(start, keys, &mut scores[..count * width]);
    }

    /// Makes the scores of keys that the queries from `start` on do not see -infinity.
    fn hide(&self, start: usize, keys: Range<usize>, scores: &mut [f32]) {
        if self.causal && keys.end > start + 1 {
            for (query, row) in scores.chunks_exact_mut(keys.len()).enumerate() {
                let hidden = (start + query + 1).clamp(keys.start, keys.end) - keys.start;
                row[hidden..].fill(f32::NEG_INFINITY);
            }
        }
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
        let k = self.head(inputs.k, self.keys, batch, head);
        let keys_of = |data| self.transposed_head(data, batch, head);
        let (keys, values) = (keys_of(inputs.keys), keys_of(inputs.values));
        let log_sums = &inputs.log_sums[index * self.queries..][..self.queries];
        let (rows, scale) = (QUERIES.min(self.queries), (d as f32).sqrt().recip());
        scratch(rows * (2 * KEYS + 1), |buffer| {
            let (common, buffer) = buffer.split_at_mut(rows);
            let (weights, slopes) = buffer.split_at_mut(rows * KEYS);
            for start in (0..self.queries).step_by(rows) {
                let count = rows.min(self.queries - start);
                let (q_block, g, out) = (q.from(start, 0), g.from(start, 0), out.from(start, 0));
                dots(g, out, d, &mut common[..count]);
                let seen = self.seen(start + count);
                for first in (0..seen).step_by(KEYS) {
                    let block = first..(first + KEYS).min(seen);
                    let len = block.len();
                    self.scores(q_block, keys, start, count, block, weights);
                    let log_sums = &log_sums[start..];
                    weights_of(&mut weights[..count * len], len, log_sums);
                    if wanted[2] {
                        let weights = Matrix::rows(weights, len).transposed();
                        product([len, d, count], weights, g, &mut dv[first * d..], d, Write::Add, 1.0);
                    }
                    if !wanted[0] && !wanted[1] {
                        continue;
                    }
                    product([count, len, d], g, values.from(0, first), slopes, len, Write::Set, 1.0);
                    slopes_of(&mut slopes[..count * len], weights, len, common);
                    let slopes = Matrix::rows(slopes, len);
                    if wanted[0] {
                        let dq = &mut dq[start * d..];
                        product([count, d, len], slopes, k.from(first, 0), dq, d, Write::Add, scale);
                    }
                    if wanted[1] {
                        let dk = &mut dk[first * d..];
                        product([len, d, count], slopes.transposed(), q_block, dk, d, Write::Add, scale);
                    }
                }
            }
        });
        gradients
    }

    /// One of the three gradients for all heads, back in the layout [batch, length, heads * d].
    fn join_heads(&self, heads: &[[Vec<f32>; 3]], which: usize, length: usize) -> Vec<f32> {
        filled(heads.len() * length * self.dim, |joined| {
            let samples = joined.par_chunks_mut(length * self.width).zip(heads.par_chunks(self.heads));
            samples.for_each(|(joined, heads)| {
                for (row, joined) in joined.chunks_exact_mut(self.width).enumerate() {
                    for (joined, head) in joined.chunks_exact_mut(self.dim).zip(heads) {
                        joined.copy_from_slice(&head[which][row * self.dim..][..self.dim]);
                    }
                }
            });
        })
    }
}

/// Turns the scores of a block of keys into weights relative to the running maximum, and rescales the earlier results:
/// scores [queries, keys], most and total `[queries]`, out [queries, d].
#[pulp::with_simd(weigh = Arch::new())]
#[inline(always)]
fn weigh_with_simd<'a, S: Simd>(
    simd: S,
    scores: &'a mut [f32],
    most: &'a mut [f32],
    total: &'a mut [f32],
    out: &'a mut [f32],
) {
    let (keys, d) = (scores.len() / most.len(), out.len() / most.len());
    let queries = most.iter_mut().zip(total).zip(out.chunks_exact_mut(d));
    for (row, ((most, total), out)) in scores.chunks_exact_mut(keys).zip(queries) {
        let highest = max(simd, row).max(*most);
        let shrink = exp(*most - highest);
        row.iter_mut().for_each(|score| *score = exp(*score - highest));
        *total = *total * shrink + sum(simd, row);
        *most = highest;
        out.iter_mut().for_each(|out| *out *= shrink);
    }
}

/// Turns the scores of rows of `len` keys into weights, given the logarithm of each row's sum of exponentials.
fn weights_of(scores: &mut [f32], len: usize, log_sums: &[f32]) {
    widest(
        #[inline(always)]
        || {
            for (row, log_sum) in scores.chunks_exact_mut(len).zip(log_sums) {
                row.iter_mut().for_each(|score| *score = exp(*score - log_sum));
            }
        },
    );
}

/// Turns the gradients of weights, in rows of `len` keys, into those of scores. `common` is the value subtracted from
/// each row.
fn slopes_of(slopes: &mut [f32], weights: &[f32], len: usize, common: &[f32]) {
    widest(
        #[inline(always)]
        || {
            let lines = slopes.chunks_exact_mut(len).zip(weights.chunks_exact(len));
            for ((slopes, weights), common) in lines.zip(common) {
                let pairs = slopes.iter_mut().zip(weights);
                pairs.for_each(|(slope, weight)| *slope = weight * (*slope - common));
            }
        },
    );
}

/// The dot product of each pair of rows of d elements.
#[pulp::with_simd(dots = Arch::new())]
#[inline(always)]
fn dots_with_simd<'a, S: Simd>(simd: S, x: Matrix<'a>, y: Matrix<'a>, d: usize, products: &'a mut [f32]) {
    for (row, product) in products.iter_mut().enumerate() {
        *product = dot(simd, &x.data[row * x.row..][..d], &y.data[row * y.row..][..d]);
    }
}
