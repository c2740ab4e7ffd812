//! The instructions of AVX-512 BF16: conversion, packing, and the tile of a product.
//!
//! `vdpbf16ps` multiplies pairs of bf16 numbers, exactly, and adds both products to an f32 sum, each addition rounded to the nearest.
//! It takes numbers below 2^-126 as zero, in its operands and in its sums, and so does the conversion from f32. NaN and infinities
//! stay what they are.

use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;
use std::mem::transmute;

use super::super::gemm::Matrix;
use super::super::math::{EXP, LN2_HIGH, LN2_LOW, exp};
use super::super::window::Window;
use super::amx::Tiles;
use super::layout::{GRAIN, LANES, Packing, Part};
use super::seen::Seen;

/// Proof that this processor has the instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::cpu) struct Unit {
    tiles: Option<Tiles>,
}

impl Unit {
    /// Asks the processor.
    pub(in crate::nn::cpu) fn detect() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        there.then(|| Self { tiles: Tiles::detect() })
    }

    /// The same without AMX.
    #[cfg(test)]
    pub(super) fn without_tiles(self) -> Self {
        Self { tiles: None }
    }

    /// The tiles of AMX, if this processor has them too.
    pub(super) fn tiles(self) -> Option<Tiles> {
        self.tiles
    }

    /// Writes the numbers times `scale` in bf16, rounded to the nearest, and to even between two.
    pub(in crate::nn::cpu) fn round(self, numbers: &[f32], scale: f32, halves: &mut [u16]) {
        // SAFETY: a unit exists only where the processor has the instructions.
        unsafe { round(numbers, scale, halves) }
    }

    /// Rounds rows of `depth` numbers, times `scale`; in `halves` they follow each other, each with zeros up to the next [`GRAIN`].
    pub(in crate::nn::cpu) fn round_rows(self, from: Matrix, depth: usize, scale: f32, halves: &mut [u16]) {
        // SAFETY: as above.
        unsafe { round_rows(from, depth, scale, halves) }
    }

    /// Packs `rows` rows of a chunk from the rows of a right operand, `step` elements apart.
    pub(in crate::nn::cpu) fn pack_rows(
        self,
        packing: &Packing,
        from: &[f32],
        step: usize,
        rows: usize,
        to: &mut [u32],
    ) {
        // SAFETY: as above.
        unsafe { pack_rows(packing, from, step, rows, to) }
    }

    /// The same for rows that are rounded already.
    pub(in crate::nn::cpu) fn pack_rounded(
        self,
        packing: &Packing,
        from: &[u16],
        step: usize,
        rows: usize,
        to: &mut [u32],
    ) {
        // SAFETY: as above.
        unsafe { pack_rounded(packing, from, step, rows, to) }
    }

    /// Packs `rows` rows of a chunk from the columns of a right operand: each is contiguous, and they are `step` elements apart.
    pub(in crate::nn::cpu) fn pack_columns(
        self,
        packing: &Packing,
        from: &[u16],
        step: usize,
        rows: usize,
        to: &mut [u32],
    ) {
        // SAFETY: as above.
        unsafe { pack_columns(packing, from, step, rows, to) }
    }

    /// Turns scores [queries, keys] into weights relative to the highest score, rounded, in rows with zeros up to the next [`GRAIN`];
    /// adds their sums, before they are rounded, to what was seen, and rescales that where a score is higher.
    pub(super) fn weigh(self, scores: &[f32], keys: usize, seen: &mut Seen, weights: &mut [u16]) {
        // SAFETY: as above.
        unsafe { weigh(scores, keys, seen, weights) }
    }

    /// Computes `R` rows by `V` vectors of a product, the last one as far as there are columns.
    pub(super) fn tile<const R: usize, const V: usize>(
        self,
        part: &Part,
        [row, column]: [usize; 2],
        columns: usize,
        out: &mut Window,
    ) {
        let last = columns - (V - 1) * LANES;
        assert!((1..=LANES).contains(&last) && part.holds(R, V), "BUG: a tile exceeds its operands");
        let stride = out.stride();
        let out = out.at([row..row + R, column..column + columns]);
        // SAFETY: as above; and the operands hold what a tile of this size reads, the window what it writes.
        unsafe { tile::<R, V>(part, out, stride, first_lanes(last)) }
    }
}

/// A mask of the first `count` lanes, at most 16.
fn first_lanes(count: usize) -> u16 {
    ((1u32 << count) - 1) as u16
}

/// The first elements of a slice, and zeros where it is shorter than a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[f32]) -> __m512 {
    // SAFETY: there is a vector, or the mask ends with the slice.
    unsafe {
        match from.first_chunk::<LANES>() {
            Some(whole) => _mm512_loadu_ps(whole.as_ptr()),
            None => _mm512_maskz_loadu_ps(first_lanes(from.len()), from.as_ptr()),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round_rows(from: Matrix, depth: usize, scale: f32, halves: &mut [u16]) {
    for (row, to) in halves.chunks_exact_mut(depth.next_multiple_of(GRAIN)).enumerate() {
        round(&from.data[row * from.row..][..depth], scale, &mut to[..depth]);
        to[depth..].fill(0);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round(numbers: &[f32], scale: f32, halves: &mut [u16]) {
    let scale = _mm512_set1_ps(scale);
    for (from, to) in numbers.chunks(LANES).zip(halves.chunks_mut(LANES)) {
        let rounded = _mm512_cvtneps_pbh(_mm512_mul_ps(load(from), scale));
        let mask = first_lanes(from.len().min(to.len()));
        // SAFETY: the mask ends with the slice; both vectors are 32 bytes of 16 numbers.
        unsafe {
            _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask, transmute::<__m256bh, __m256i>(rounded))
        };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn weigh(scores: &[f32], keys: usize, seen: &mut Seen, weights: &mut [u16]) {
    let (queries, d) = (seen.most.len(), seen.out.len() / seen.most.len());
    let rows = scores.chunks_exact(keys).zip(weights.chunks_exact_mut(keys.next_multiple_of(GRAIN)));
    let rows = rows.zip(seen.out.chunks_exact_mut(d)).zip(seen.most.iter_mut().zip(&mut *seen.total));
    for (((scores, weights), out), (most, total)) in rows.take(queries) {
        let mut highest = _mm512_set1_ps(*most);
        for part in scores.chunks(LANES) {
            // What is not a number may be lost here, but not among the weights.
            highest = _mm512_mask_max_ps(highest, first_lanes(part.len()), highest, load(part));
        }
        let highest = _mm512_reduce_max_ps(highest);
        if highest != *most {
            let shrink = exp(*most - highest);
            *total *= shrink;
            out.iter_mut().for_each(|out| *out *= shrink);
            *most = highest;
        }
        let (highest, mut sum) = (_mm512_set1_ps(highest), _mm512_setzero_ps());
        for (part, to) in scores.chunks(LANES).zip(weights.chunks_exact_mut(LANES)) {
            let mask = first_lanes(part.len());
            let weight = exp_of_vector(_mm512_sub_ps(load(part), highest));
            sum = _mm512_mask_add_ps(sum, mask, sum, weight);
            let rounded = _mm512_maskz_cvtneps_pbh(mask, weight);
            // SAFETY: both are 32 bytes.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), transmute::<__m256bh, __m256i>(rounded)) };
        }
        weights[keys.next_multiple_of(LANES)..].fill(0);
        *total += _mm512_reduce_add_ps(sum);
    }
}

/// [`exp`] of up to zero, by the same polynomial.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp_of_vector(x: __m512) -> __m512 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    // The second operand is taken if it is not a number.
    let x = _mm512_max_ps(_mm512_set1_ps(-87.3), x);
    let n = _mm512_roundscale_ps::<NEAREST>(_mm512_mul_ps(x, _mm512_set1_ps(LOG2_E)));
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(LN2_HIGH), x);
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(LN2_LOW), r);
    let mut p = _mm512_set1_ps(EXP[0]);
    for coefficient in &EXP[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*coefficient));
    }
    let mantissa = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
    _mm512_scalef_ps(mantissa, n)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_rows(packing: &Packing, from: &[f32], step: usize, rows: usize, to: &mut [u32]) {
    let order: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * LANES) as u16);
    // SAFETY: both are 64 bytes.
    let order = unsafe { transmute::<[u16; 32], __m512i>(order) };
    for (column, columns, element) in packing.panels() {
        let width = columns.next_multiple_of(LANES);
        to[element..][packing.free(rows, width)].fill(0);
        let panel = &mut to[element..][..rows.div_ceil(2) * width];
        for (pair, to) in panel.chunks_exact_mut(width).enumerate() {
            let low = &from[2 * pair * step + column..][..columns];
            let high =
                if 2 * pair + 1 < rows { &from[(2 * pair + 1) * step + column..][..columns] } else { &[] };
            for (vector, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let part = |row: &[f32]| load(row.get(vector * LANES..).unwrap_or_default());
                let halves = _mm512_cvtne2ps_pbh(part(high), part(low));
                // SAFETY: all three are 64 bytes.
                *to = unsafe {
                    let pairs = _mm512_permutexvar_epi16(order, transmute::<__m512bh, __m512i>(halves));
                    transmute::<__m512i, [u32; LANES]>(pairs)
                };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_rounded(packing: &Packing, from: &[u16], step: usize, rows: usize, to: &mut [u32]) {
    let order = |first: usize| -> __m512i {
        let order: [u16; 32] = std::array::from_fn(|i| (first + i / 2 + i % 2 * 2 * LANES) as u16);
        // SAFETY: both are 64 bytes.
        unsafe { transmute(order) }
    };
    let orders = [order(0), order(LANES)];
    for (column, columns, element) in packing.panels() {
        let width = columns.next_multiple_of(LANES);
        to[element..][packing.free(rows, width)].fill(0);
        let panel = &mut to[element..][..rows.div_ceil(2) * width];
        for (pair, to) in panel.chunks_exact_mut(width).enumerate() {
            let row = |row: usize| if row < rows { &from[row * step + column..][..columns] } else { &[] };
            let (low, high) = (row(2 * pair), row(2 * pair + 1));
            for (two, to) in to.chunks_mut(2 * LANES).enumerate() {
                let [low, high] =
                    [low, high].map(|row| load_halves(row.get(2 * LANES * two..).unwrap_or_default()));
                for (to, order) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(orders) {
                    // SAFETY: both are 64 bytes.
                    *to = unsafe {
                        transmute::<__m512i, [u32; LANES]>(_mm512_permutex2var_epi16(low, order, high))
                    };
                }
            }
        }
    }
}

/// The first 32 elements of a slice, and zeros where it is shorter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_halves(from: &[u16]) -> __m512i {
    let mask = u32::MAX.checked_shr(32 - from.len().min(32) as u32).unwrap_or(0);
    // SAFETY: the mask ends with the slice.
    unsafe { _mm512_maskz_loadu_epi16(mask, from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_columns(packing: &Packing, from: &[u16], step: usize, rows: usize, to: &mut [u32]) {
    for (column, columns, element) in packing.panels() {
        let width = columns.next_multiple_of(LANES);
        to[element..][packing.free(rows, width)].fill(0);
        let panel = &mut to[element..][..rows.div_ceil(2) * width];
        for (group, first) in (column..column + columns).step_by(LANES).enumerate() {
            let lines: [&[u16]; LANES] = std::array::from_fn(|lane| match first + lane < column + columns {
                true => &from[(first + lane) * step..][..rows],
                false => &[],
            });
            for (block, to) in panel.chunks_mut(LANES * width).enumerate() {
                let rows = lines.map(|line| load_halves(line.get(2 * LANES * block..).unwrap_or_default()));
                for (to, pairs) in to.chunks_exact_mut(width).zip(transpose(rows)) {
                    // SAFETY: both are 64 bytes.
                    to[group * LANES..][..LANES]
                        .copy_from_slice(&unsafe { transmute::<__m512i, [u32; LANES]>(pairs) });
                }
            }
        }
    }
}

/// Exchanges rows and columns of 16 by 16 elements of 32 bits: within groups of four rows by interleaving, then between groups.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut grouped = rows;
    for (to, four) in grouped.as_chunks_mut::<4>().0.iter_mut().zip(rows.as_chunks::<4>().0) {
        let [low, other_low] =
            [_mm512_unpacklo_epi32(four[0], four[1]), _mm512_unpacklo_epi32(four[2], four[3])];
        let [high, other_high] =
            [_mm512_unpackhi_epi32(four[0], four[1]), _mm512_unpackhi_epi32(four[2], four[3])];
        *to = [
            _mm512_unpacklo_epi64(low, other_low),
            _mm512_unpackhi_epi64(low, other_low),
            _mm512_unpacklo_epi64(high, other_high),
            _mm512_unpackhi_epi64(high, other_high),
        ];
    }
    let mut columns = rows;
    for i in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|group| grouped[4 * group + i]);
        let (even, odd) = (_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
        let (other_even, other_odd) = (_mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd));
        columns[i] = _mm512_shuffle_i32x4(even, other_even, 0x88);
        columns[4 + i] = _mm512_shuffle_i32x4(odd, other_odd, 0x88);
        columns[8 + i] = _mm512_shuffle_i32x4(even, other_even, 0xdd);
        columns[12 + i] = _mm512_shuffle_i32x4(odd, other_odd, 0xdd);
    }
    columns
}

/// `out (+)= left right` for `R` rows and `V` vectors; `last` are the lanes of the last vector.
///
/// # Safety
/// `part.holds(R, V)`, and `out` can be written at `R` rows, `stride` apart, of `V` vectors as far as `last` says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile<const R: usize, const V: usize>(part: &Part, out: *mut f32, stride: usize, last: u16) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    let (mut left, mut right, mut rest) = (part.left.data.as_ptr(), part.right.as_ptr(), part.pairs);
    while rest > 0 {
        let pairs = rest.min(part.chunk);
        for pair in 0..pairs {
            // SAFETY: the part holds these operands.
            unsafe {
                let from = right.add(pair * V * LANES);
                let vectors: [__m512bh; V] =
                    std::array::from_fn(|v| transmute(_mm512_loadu_si512(from.add(v * LANES).cast())));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let pair = left.add(row * part.left.step + 2 * pair).cast::<i32>().read_unaligned();
                    let pair = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair));
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = _mm512_dpbf16_ps(*sum, pair, vector);
                    }
                }
            }
        }
        rest -= pairs;
        left = left.wrapping_add(2 * pairs);
        right = right.wrapping_add(part.stride);
    }
    for (row, sums) in sums.iter().enumerate() {
        for (vector, sum) in sums.iter().enumerate() {
            let mask = if vector + 1 == V { last } else { u16::MAX };
            // SAFETY: the caller lends these elements.
            unsafe {
                let to = out.add(row * stride + vector * LANES);
                let before = if part.adds { _mm512_maskz_loadu_ps(mask, to) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(before, *sum));
            }
        }
    }
}
