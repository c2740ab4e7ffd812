//! Vectorised sums and maxima over slices.
//!
//! Written with explicit vectors: with automatic vectorisation, the same loop became three times slower after a change
//! elsewhere in the file.

use pulp::{Scalar, Simd};
use rayon::prelude::*;

use super::simd::widest;

/// A sum of `K` terms, computed from the elements of `N` slices at one index.
pub(super) trait Terms<const N: usize, const K: usize>: Copy {
    fn at<S: Simd>(self, simd: S, elements: [S::f32s; N]) -> [S::f32s; K];
}

/// Number of vectors summed in parallel: an addition takes four cycles, and two can start per cycle.
const STRANDS: usize = 4;

/// The sums of all terms, for slices of equal length.
#[inline(always)]
pub(super) fn sums<S: Simd, const N: usize, const K: usize>(
    simd: S,
    slices: [&[f32]; N],
    terms: impl Terms<N, K>,
) -> [f32; K] {
    let length = slices[0].len();
    let whole = length / S::F32_LANES;
    let mut vectors: [&[S::f32s]; N] = [&[]; N];
    for (vectors, slice) in vectors.iter_mut().zip(slices) {
        *vectors = &S::as_simd_f32s(&slice[..length]).0[..whole];
    }
    let zero = simd.splat_f32s(0.0);
    let mut strands = [[zero; K]; STRANDS];
    let mut first = 0;
    while first + STRANDS <= whole {
        for (strand, sums) in strands.iter_mut().enumerate() {
            add(simd, sums, vectors, first + strand, terms);
        }
        first += STRANDS;
    }
    while first < whole {
        add(simd, &mut strands[0], vectors, first, terms);
        first += 1;
    }
    let mut result = [0.0; K];
    for (k, result) in result.iter_mut().enumerate() {
        let low = simd.add_f32s(strands[0][k], strands[1][k]);
        let high = simd.add_f32s(strands[2][k], strands[3][k]);
        *result = simd.reduce_sum_f32s(simd.add_f32s(low, high));
    }
    for i in whole * S::F32_LANES..length {
        let mut elements = [0.0; N];
        for (element, slice) in elements.iter_mut().zip(slices) {
            *element = slice[i];
        }
        for (result, term) in result.iter_mut().zip(terms.at(Scalar, elements)) {
            *result += term;
        }
    }
    result
}

#[inline(always)]
fn add<S: Simd, const N: usize, const K: usize>(
    simd: S,
    sums: &mut [S::f32s; K],
    vectors: [&[S::f32s]; N],
    index: usize,
    terms: impl Terms<N, K>,
) {
    let mut elements = [simd.splat_f32s(0.0); N];
    for (element, vectors) in elements.iter_mut().zip(vectors) {
        *element = vectors[index];
    }
    for (sum, term) in sums.iter_mut().zip(terms.at(simd, elements)) {
        *sum = simd.add_f32s(*sum, term);
    }
}

/// `x_i`
#[derive(Clone, Copy)]
struct Plain;

impl Terms<1, 1> for Plain {
    #[inline(always)]
    fn at<S: Simd>(self, _: S, x: [S::f32s; 1]) -> [S::f32s; 1] {
        x
    }
}

/// `sum x_i`
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    sums(simd, [x], Plain)[0]
}

/// `x_i y_i`
#[derive(Clone, Copy)]
struct Product;

impl Terms<2, 1> for Product {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, y]: [S::f32s; 2]) -> [S::f32s; 1] {
        [simd.mul_f32s(x, y)]
    }
}

/// `sum x_i y_i`
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    sums(simd, [x, y], Product)[0]
}

/// `(x_i - mean)^2`
#[derive(Clone, Copy)]
struct SquareFrom(f32);

impl Terms<1, 1> for SquareFrom {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x]: [S::f32s; 1]) -> [S::f32s; 1] {
        let from_mean = simd.sub_f32s(x, simd.splat_f32s(self.0));
        [simd.mul_f32s(from_mean, from_mean)]
    }
}

/// The normalisation of a norm: `(x - mean) scale`.
#[derive(Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) mean: f32,
    /// `1 / sqrt(variance + eps)`
    pub(super) scale: f32,
}

impl Moments {
    /// The moments of `x`, in two passes.
    #[inline(always)]
    pub(super) fn of<S: Simd>(simd: S, x: &[f32], eps: f32) -> Self {
        let count = x.len() as f32;
        let mean = sum(simd, x) / count;
        let [squares] = sums(simd, [x], SquareFrom(mean));
        Self { mean, scale: 1.0 / (squares / count + eps).sqrt() }
    }

    #[inline(always)]
    pub(super) fn normal(self, x: f32) -> f32 {
        (x - self.mean) * self.scale
    }

    #[inline(always)]
    fn normals<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(simd.sub_f32s(x, simd.splat_f32s(self.mean)), simd.splat_f32s(self.scale))
    }
}

/// For x, gradients g and, with three slices, weights w: `w g` and `w g n`, where n is the normalised x.
#[derive(Clone, Copy)]
pub(super) struct WithNormal(pub(super) Moments);

impl Terms<2, 2> for WithNormal {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, g]: [S::f32s; 2]) -> [S::f32s; 2] {
        [g, simd.mul_f32s(g, self.0.normals(simd, x))]
    }
}

impl Terms<3, 2> for WithNormal {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, g, weight]: [S::f32s; 3]) -> [S::f32s; 2] {
        self.at(simd, [x, simd.mul_f32s(weight, g)])
    }
}

/// The largest element; -infinity for an empty slice. NaN elements may be ignored.
#[inline(always)]
pub(super) fn max<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(x);
    let mut most = simd.splat_f32s(f32::NEG_INFINITY);
    for &vector in vectors {
        most = simd.max_f32s(vector, most);
    }
    rest.iter().fold(simd.reduce_max_f32s(most), |most, &value| if value > most { value } else { most })
}

/// Number of rows that are added sequentially; the sums of these blocks are then added in order.
const BLOCK: usize = 256;

/// The sum of the rows of `data`, each `width` elements long.
pub(super) fn sum_of_rows(data: &[f32], width: usize) -> Vec<f32> {
    let block_sum = |block: &[f32]| {
        let mut sums = vec![0.0f32; width];
        widest(
            #[inline(always)]
            || {
                for row in block.chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            },
        );
        sums
    };
    let blocks: Vec<Vec<f32>> = data.par_chunks((BLOCK * width).max(1)).map(block_sum).collect();
    if blocks.len() == 1 { blocks.concat() } else { block_sum(&blocks.concat()) }
}
