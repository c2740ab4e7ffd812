//! Sums and maxima over slices in fixed lanes: vectorised, and the same on every machine.

use rayon::prelude::*;

use super::simd::widest;

/// Lanes of one accumulator, the widest vector of any machine.
const LANES: usize = 16;
/// Accumulators of one sum: an addition takes four cycles and two can begin in each.
const STRANDS: usize = 4;

/// `K` sums side by side: over all i, of `term([x_i, y_i, ..])` for slices of one length.
#[inline(always)]
pub(super) fn sums<const N: usize, const K: usize>(
    slices: [&[f32]; N],
    term: impl Fn([f32; N]) -> [f32; K],
) -> [f32; K] {
    let length = slices[0].len();
    let slices = slices.map(|slice| &slice[..length]);
    let (chunks, rest) = (slices.map(|slice| slice.as_chunks::<LANES>().0), length % LANES);
    let mut strands = [[[0.0f32; LANES]; K]; STRANDS];
    let add = |sums: &mut [[f32; LANES]; K], chunk: usize| {
        let chunks = chunks.map(|chunks| &chunks[chunk]);
        for lane in 0..LANES {
            let terms = term(chunks.map(|chunk| chunk[lane]));
            sums.iter_mut().zip(terms).for_each(|(sums, term)| sums[lane] += term);
        }
    };
    let whole = length / LANES;
    for first in (0..whole - whole % STRANDS).step_by(STRANDS) {
        strands.iter_mut().enumerate().for_each(|(strand, sums)| add(sums, first + strand));
    }
    for (strand, sums) in strands.iter_mut().enumerate() {
        if strand < whole % STRANDS {
            add(sums, whole - whole % STRANDS + strand);
        }
    }
    let mut last = [[0.0; LANES]; K];
    for lane in 0..rest {
        let terms = term(slices.map(|slice| slice[whole * LANES + lane]));
        last.iter_mut().zip(terms).for_each(|(sums, term)| sums[lane] = term);
    }
    let joined = |k: usize| {
        let [a, b, c, d] = strands.map(|sums| sums[k]);
        by_halves(std::array::from_fn(|lane| (a[lane] + b[lane]) + (c[lane] + d[lane]) + last[k][lane]))
    };
    std::array::from_fn(joined)
}

/// The sum of all lanes.
#[inline(always)]
fn by_halves(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    lanes[0]
}

/// `sum x_i`
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let [sum] = sums([x], |[x]| [x]);
    sum
}

/// `sum x_i y_i` over the shorter of the two.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let [dot] = sums([&x[..x.len().min(y.len())], y], |[x, y]| [x * y]);
    dot
}

/// What a norm makes of its elements: `(x - mean) scale`.
#[derive(Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) mean: f32,
    /// `1 / sqrt(variance + eps)`
    pub(super) scale: f32,
}

impl Moments {
    /// Of the elements of `x`, in two passes.
    #[inline(always)]
    pub(super) fn of(x: &[f32], eps: f32) -> Self {
        let count = x.len() as f32;
        let mean = sum(x) / count;
        let [squares] = sums([x], |[x]| [(x - mean) * (x - mean)]);
        Self { mean, scale: 1.0 / (squares / count + eps).sqrt() }
    }

    #[inline(always)]
    pub(super) fn normal(self, x: f32) -> f32 {
        (x - self.mean) * self.scale
    }
}

/// The largest element; NaN elements are passed over.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// Rows that are added one after the other; the sums of such blocks are then added in order.
const BLOCK: usize = 256;

/// The sum of the rows of `data`, each `width` long.
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
