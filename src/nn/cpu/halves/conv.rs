//! Convolution as a product of bf16 weights with the columns of the input, rounded and packed as they are gathered.

use rayon::prelude::*;

use super::{GRAIN, Left, Packing, Right, Unit, halves, pairs};
use crate::nn::cpu::columns::Geometry;
use crate::nn::cpu::gemm::{Matrix, Write};
use crate::nn::cpu::pieces::each;
use crate::nn::cpu::window::Window;
use crate::nn::cpu::{filled, scratch};

/// Rows of the columns that one task gathers, about: they stay in the second-level cache until they are packed. With tiles, a whole
/// number of steps.
const CHUNK: usize = 80;
const CHUNK_OF_TILES: usize = 9 * GRAIN;

/// Pixels of a strip, about, and strips for each thread from which on an image is cut into strips.
const STRIP: usize = 256;
const STRIPS: usize = 2;
/// Rows of the columns that are multiplied at once: with those of a strip, 720 KiB.
const TOGETHER: usize = 5 * CHUNK_OF_TILES;
/// Elements rounded per task.
const ROUNDED: usize = 1 << 16;

impl Unit {
    /// Input channels whose columns one task gathers.
    fn channels(self, taps: usize) -> usize {
        let (rows, grain) = match self.has_tiles() {
            true => (CHUNK_OF_TILES, GRAIN),
            false => (CHUNK, 2),
        };
        let least = grain >> taps.trailing_zeros().min(grain.trailing_zeros());
        (rows / taps / least).max(1) * least
    }

    /// Input channels whose transforms one task of Winograd's method packs; with 256 tiles, 256 KiB and with AMX 512.
    pub(in crate::nn::cpu) fn transforms(self) -> usize {
        if self.has_tiles() { GRAIN } else { GRAIN / 2 }
    }

    /// Lends bf16 weights [rows, depth] as a left operand: copied only if a row does not end with a step.
    pub(in crate::nn::cpu) fn lend_weights<R>(
        self,
        weight: &[u16],
        depth: usize,
        work: impl FnOnce(Left) -> R,
    ) -> R {
        if depth.is_multiple_of(if self.has_tiles() { GRAIN } else { 2 }) {
            return work(Left { data: weight, step: depth, padded: false });
        }
        let step = depth.next_multiple_of(GRAIN);
        halves(weight.len() / depth * step, |data| {
            for (to, from) in data.chunks_exact_mut(step).zip(weight.chunks_exact(depth)) {
                to[..depth].copy_from_slice(from);
                to[depth..].fill(0);
            }
            work(Left { data, step, padded: true })
        })
    }
}

impl Geometry {
    /// The outputs of x [batch, in, h, w] and weight [out, in, kernel, kernel] in bf16.
    pub(in crate::nn::cpu) fn convolve_halves(
        &self,
        unit: Unit,
        x: &[f32],
        weight: &[u16],
        bias: &[f32],
    ) -> Vec<f32> {
        let (image_in, image_out) = (self.input * self.plane(), self.output * self.pixels());
        let group = if self.cuts_batch() { self.group() } else { 1 };
        filled(self.batch * image_out, |out| {
            unit.lend_weights(weight, self.depth(), |left| {
                let strips = if self.is_pointwise() || group > 1 { 0 } else { self.batch * self.strips() };
                if unit.has_tiles() && strips >= STRIPS * rayon::current_num_threads() {
                    return self.halves_of_strips(unit, x, left, bias, out);
                }
                if group == 1 {
                    let images = out.chunks_mut(image_out).zip(x.chunks(image_in));
                    return images.for_each(|(out, x)| self.halves_of_image(unit, x, left, bias, out));
                }
                let groups = out.par_chunks_mut(group * image_out).zip(x.par_chunks(group * image_in));
                groups.for_each(|(out, x)| self.halves_of_group(unit, x, left, bias, out));
            });
        })
    }

    /// Output rows of a strip, the part of an image that one task computes, and the number of strips.
    fn strip_rows(&self) -> usize {
        (STRIP / self.out_width).clamp(1, self.out_height)
    }

    fn strips(&self) -> usize {
        self.out_height.div_ceil(self.strip_rows())
    }

    /// Strips of all images, each by one thread: its columns are still in the thread's cache when they are multiplied.
    fn halves_of_strips(&self, unit: Unit, x: &[f32], left: Left, bias: &[f32], out: &mut [f32]) {
        let (image_in, image_out) = (self.input * self.plane(), self.output * self.pixels());
        let strip = [self.output, self.strip_rows() * self.out_width];
        let apart: Vec<_> = (0..self.strips()).map(|strip| strip..strip + 1).collect();
        halves(x.len(), |rounded| {
            let parts = rounded.par_chunks_mut(ROUNDED).zip(x.par_chunks(ROUNDED));
            parts.for_each(|(to, from)| unit.round(from, 1.0, to));
            let images = rounded.chunks(image_in).zip(out.chunks_mut(image_out));
            let strips = images.flat_map(|(x, out)| {
                let out = Window::new(out, self.pixels(), [self.output, self.pixels()]);
                out.pieces(strip, &apart).into_iter().flatten().map(move |([_, first], out)| (x, first, out))
            });
            each(strips.collect(), |(x, first, mut out)| {
                for (row, bias) in bias.iter().enumerate() {
                    out.row(row).fill(*bias);
                }
                self.halves_of_strip(unit, x, left, first / self.out_width, &mut out);
            });
        });
    }

    /// Adds the products of the output rows from `first` on; x is rounded.
    fn halves_of_strip(&self, unit: Unit, x: &[u16], left: Left, first: usize, out: &mut Window) {
        let (taps, columns) = (self.taps(), out.columns());
        let rows = first..first + columns / self.out_width;
        let channels = unit.channels(taps);
        let together = (TOGETHER / channels / taps).max(1) * channels;
        for (block, planes) in x.chunks(together * self.plane()).enumerate() {
            let depth = planes.len() / self.plane() * taps;
            let chunk = if depth > channels * taps { channels * taps } else { depth.next_multiple_of(GRAIN) };
            let packing = Packing { depth, columns, chunk, stride: Packing::elements(chunk, columns) };
            pairs(packing.length(), |right| {
                let chunks =
                    right.chunks_exact_mut(packing.stride).zip(planes.chunks(channels * self.plane()));
                for (to, planes) in chunks {
                    let depth = planes.len() / self.plane() * taps;
                    halves(depth * columns, |gathered| {
                        self.gather(planes, rows.clone(), gathered, columns);
                        unit.pack_rounded(&packing, gathered, columns, depth, to);
                    });
                }
                let left = left.from(0, block * together * taps);
                unit.multiply(left, Right { data: right, packing }, 0, Write::Add, out);
            });
        }
    }

    /// One image, in tiles of rows: all threads gather and pack a tile, then all multiply.
    fn halves_of_image(&self, unit: Unit, x: &[f32], left: Left, bias: &[f32], out: &mut [f32]) {
        let (pixels, taps) = (self.pixels(), self.taps());
        let channels = unit.channels(taps);
        let rows = if self.is_pointwise() { self.out_height } else { self.tile_rows() };
        for first in (0..self.out_height).step_by(rows) {
            let tile = first..(first + rows).min(self.out_height);
            let count = tile.len() * self.out_width;
            let chunk =
                if channels < self.input { channels * taps } else { self.depth().next_multiple_of(GRAIN) };
            let stride = Packing::elements(chunk, count);
            let packing = Packing { depth: self.depth(), columns: count, chunk, stride };
            pairs(packing.length(), |right| {
                let chunks = right.par_chunks_exact_mut(stride).zip(x.par_chunks(channels * self.plane()));
                chunks.for_each(|(to, planes)| {
                    let depth = planes.len() / self.plane() * taps;
                    if self.is_pointwise() {
                        return unit.pack_rows(&packing, planes, pixels, depth, to);
                    }
                    scratch(depth * count, |columns| {
                        self.gather(planes, tile.clone(), columns, count);
                        unit.pack_rows(&packing, columns, count, depth, to);
                    });
                });
                let out = Window::new(&mut out[first * self.out_width..], pixels, [self.output, count]);
                unit.parallel(left, Right { data: right, packing }, bias, out);
            });
        }
    }

    /// Several small images in one product.
    fn halves_of_group(&self, unit: Unit, x: &[f32], left: Left, bias: &[f32], out: &mut [f32]) {
        let depth = self.depth();
        let width = out.len() / self.output;
        scratch((depth + self.output) * width, |buffer| {
            let (columns, result) = buffer.split_at_mut(depth * width);
            self.gather_group(x, self.input, columns, width);
            let mut window = Window::new(result, width, [self.output, width]);
            unit.multiply_rows(left, Matrix::rows(columns, width), depth, Write::Set, &mut window);
            self.split_group(result, bias, out);
        });
    }
}
