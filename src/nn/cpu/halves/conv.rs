//! Convolution as a product of bf16 weights with the columns of the input, rounded and packed as they are gathered.

use rayon::prelude::*;

use super::{Left, Packing, Right, Unit, halves, pairs};
use crate::nn::cpu::columns::Geometry;
use crate::nn::cpu::gemm::{Matrix, Write};
use crate::nn::cpu::window::Window;
use crate::nn::cpu::{filled, scratch};

/// Rows of the columns that one task gathers, about: they stay in the second-level cache until they are packed.
const CHUNK: usize = 80;

impl Unit {
    /// Lends bf16 weights [rows, depth] as a left operand: copied only if the length of a row is odd.
    pub(in crate::nn::cpu) fn lend_weights<R>(
        self,
        weight: &[u16],
        depth: usize,
        work: impl FnOnce(Left) -> R,
    ) -> R {
        if depth.is_multiple_of(2) {
            return work(Left { data: weight, step: depth });
        }
        let step = depth + 1;
        halves(weight.len() / depth * step, |data| {
            for (to, from) in data.chunks_exact_mut(step).zip(weight.chunks_exact(depth)) {
                to[..depth].copy_from_slice(from);
                to[depth] = 0;
            }
            work(Left { data, step })
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
                if group == 1 {
                    let images = out.chunks_mut(image_out).zip(x.chunks(image_in));
                    return images.for_each(|(out, x)| self.halves_of_image(unit, x, left, bias, out));
                }
                let groups = out.par_chunks_mut(group * image_out).zip(x.par_chunks(group * image_in));
                groups.for_each(|(out, x)| self.halves_of_group(unit, x, left, bias, out));
            });
        })
    }

    /// One image, in tiles of rows: all threads gather and pack a tile, then all multiply.
    fn halves_of_image(&self, unit: Unit, x: &[f32], left: Left, bias: &[f32], out: &mut [f32]) {
        let (pixels, taps) = (self.pixels(), self.taps());
        let channels = (CHUNK / taps).max(2) / 2 * 2;
        let rows = if self.is_pointwise() { self.out_height } else { self.tile_rows() };
        for first in (0..self.out_height).step_by(rows) {
            let tile = first..(first + rows).min(self.out_height);
            let count = tile.len() * self.out_width;
            let chunk = channels * taps;
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
