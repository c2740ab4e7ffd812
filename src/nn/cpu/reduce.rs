//! Sums and maxima over a slice in sixteen fixed lanes: vectorised, and the same on every machine.

use rayon::prelude::*;

use super::simd::widest;

const LANES: usize = 16;

/// `sum over i of term(i)`; terms are f32, the lanes are joined in f64.
#[inline(always)]
fn sum_terms(length: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = length - length % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    for (lane, i) in (whole..length).enumerate() {
        lanes[lane] += term(i);
    }
    lanes.iter().map(|&sum| f64::from(sum)).sum::<f64>() as f32
}

/// `sum x_i`
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    sum_terms(
        x.len(),
        #[inline(always)]
        |i| x[i],
    )
}

/// `sum x_i y_i` over the shorter of the two.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let length = x.len().min(y.len());
    let (x, y) = (&x[..length], &y[..length]);
    sum_terms(
        length,
        #[inline(always)]
        |i| x[i] * y[i],
    )
}

/// Mean and the reciprocal root of the variance plus `eps`, in two passes.
#[inline(always)]
pub(super) fn mean_and_scale(x: &[f32], eps: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = sum(x) / count;
    let variance = sum_terms(
        x.len(),
        #[inline(always)]
        |i| (x[i] - mean) * (x[i] - mean),
    ) / count;
    (mean, 1.0 / (variance + eps).sqrt())
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
