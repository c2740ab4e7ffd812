//! The gradients of a convolution, split like the forward pass: by images if there are many, else by channels. The
//! weight's gradient is split by input channels, because each task then needs only the columns of its own channels; if
//! there are few, it is also computed as partial sums over the batch.

use pulp::{Arch, Simd};
use rayon::prelude::*;

use super::columns::Geometry;
use super::conv::{COLUMN_ELEMENTS, SHARED_PIXELS};
use super::gemm::{Matrix, TASKS, Write, add_parts, product};
use super::reduce::sum;
use super::simd::widest;
use super::{filled, scratch};

/// Minimum number of input channels per task: a product of fewer columns spends its time on packing.
const MIN_CHANNELS: usize = 32;

impl Geometry {
    /// Output gradients of several images side by side: [images, out, pixels] -> [out, images * pixels].
    fn join_gradients(&self, gradient: &[f32], joined: &mut [f32], width: usize) {
        for (image, gradient) in gradient.chunks(self.output * self.pixels()).enumerate() {
            for (row, gradient) in joined.chunks_mut(width).zip(gradient.chunks(self.pixels())) {
                row[image * self.pixels()..][..self.pixels()].copy_from_slice(gradient);
            }
        }
    }

    /// `W^T g`, added to the pixels that each column was copied from.
    pub(super) fn input_gradient(&self, gradient: &[f32], weight: &[f32]) -> Vec<f32> {
        let image_in = self.input * self.plane();
        filled(self.batch * image_in, |out| self.write_input_gradient(gradient, weight, out))
    }

    fn write_input_gradient(&self, gradient: &[f32], weight: &[f32], out: &mut [f32]) {
        let (image_in, image_out) = (self.input * self.plane(), self.output * self.pixels());
        if self.cuts_batch() {
            let group = self.group();
            let groups = out.par_chunks_mut(group * image_in).zip(gradient.par_chunks(group * image_out));
            groups.for_each(|(out, gradient)| {
                let width = gradient.len() / self.output;
                if gradient.len() == image_out {
                    self.input_gradient_of(gradient, width, weight, self.input, out);
                } else {
                    scratch(gradient.len(), |joined| {
                        self.join_gradients(gradient, joined, width);
                        self.input_gradient_of(joined, width, weight, self.input, out);
                    });
                }
            });
        } else {
            let channels = self.input.div_ceil(TASKS);
            for (out, gradient) in out.chunks_mut(image_in).zip(gradient.chunks(image_out)) {
                out.par_chunks_mut(channels * self.plane()).enumerate().for_each(|(block, out)| {
                    let weight = &weight[block * channels * self.taps()..];
                    let channels = out.len() / self.plane();
                    self.input_gradient_of(gradient, self.pixels(), weight, channels, out);
                });
            }
        }
    }

    /// The gradient of the first `channels` input channels of `weight`, for one image or several side
    /// by side: gradient [out, width] -> out [images, channels, h, w].
    fn input_gradient_of(
        &self,
        gradient: &[f32],
        width: usize,
        weight: &[f32],
        channels: usize,
        out: &mut [f32],
    ) {
        let (taps, plane, pixels) = (self.taps(), self.plane(), self.pixels());
        let weight = Matrix::rows(weight, self.depth()).transposed();
        let gradient = Matrix::rows(gradient, width);
        if self.is_pointwise() && width == pixels {
            return product([channels, pixels, self.output], weight, gradient, out, pixels, Write::Set, 1.0);
        }
        out.fill(0.0);
        let step = (COLUMN_ELEMENTS / (taps * width)).clamp(1, channels);
        scratch(step * taps * width, |columns| {
            for first in (0..channels).step_by(step) {
                let count = step.min(channels - first);
                let shape = [count * taps, width, self.output];
                product(shape, weight.from(first * taps, 0), gradient, columns, width, Write::Set, 1.0);
                widest(
                    #[inline(always)]
                    || {
                        for (image, out) in out.chunks_mut(channels * plane).enumerate() {
                            let planes = &mut out[first * plane..][..count * plane];
                            self.scatter(&mut columns[image * pixels..], width, planes);
                        }
                    },
                );
            }
        });
    }

    /// `g columns^T`, split into blocks of input channels, and the batch into segments if there are few channels.
    pub(super) fn weight_gradient(&self, gradient: &[f32], x: &[f32]) -> Vec<f32> {
        let (taps, depth) = (self.taps(), self.depth());
        let blocks = (self.input * taps).div_ceil(256).max(TASKS).min(self.input.div_ceil(MIN_CHANNELS));
        let channels = self.input.div_ceil(blocks);
        let blocks = self.input.div_ceil(channels);
        let segments = TASKS.div_ceil(blocks).min(self.batch);
        let images = self.batch.div_ceil(segments);
        let parts: Vec<Vec<f32>> = (0..blocks * segments)
            .into_par_iter()
            .map(|task| {
                let first = task / segments * channels;
                let count = channels.min(self.input - first);
                let image = (task % segments * images).min(self.batch);
                let end = (image + images).min(self.batch);
                let gradient =
                    &gradient[image * self.output * self.pixels()..end * self.output * self.pixels()];
                let x = &x[image * self.input * self.plane()..end * self.input * self.plane()];
                self.weight_gradient_of(gradient, x, first, count)
            })
            .collect();
        filled(self.output * depth, |out| add_parts(&parts, segments, channels * taps, None, out, depth))
    }

    /// The gradient of `count` input channels starting at `first`, over a range of images: [out, count * taps].
    fn weight_gradient_of(&self, gradient: &[f32], x: &[f32], first: usize, count: usize) -> Vec<f32> {
        let (pixels, inner) = (self.pixels(), count * self.taps());
        let (image_in, image_out) = (self.input * self.plane(), self.output * pixels);
        let group = (2 * SHARED_PIXELS / pixels).max(1);
        let rows = self.tile_rows();
        let width = if group > 1 { group * pixels } else { rows * self.out_width };
        let mut part = vec![0.0; self.output * inner];
        scratch((inner + self.output) * width, |buffer| {
            let (columns, joined) = buffer.split_at_mut(inner * width);
            for (gradient, x) in gradient.chunks(group * image_out).zip(x.chunks(group * image_in)) {
                let x = &x[first * self.plane()..];
                let mut add = |gradient: Matrix, columns: Matrix, width: usize| {
                    let shape = [self.output, inner, width];
                    product(shape, gradient, columns.transposed(), &mut part, inner, Write::Add, 1.0);
                };
                if group > 1 {
                    let width = gradient.len() / self.output;
                    self.join_gradients(gradient, joined, width);
                    self.gather_group(x, count, columns, width);
                    add(Matrix::rows(joined, width), Matrix::rows(columns, width), width);
                    continue;
                }
                let planes = &x[..count * self.plane()];
                for start in (0..self.out_height).step_by(rows) {
                    let tile = start..(start + rows).min(self.out_height);
                    let width = tile.len() * self.out_width;
                    let gradient = Matrix::rows(gradient, pixels).from(0, start * self.out_width);
                    if self.is_pointwise() {
                        let planes = Matrix::rows(planes, pixels).from(0, start * self.out_width);
                        add(gradient, planes, width);
                    } else {
                        self.gather(planes, tile, columns, width);
                        add(gradient, Matrix::rows(columns, width), width);
                    }
                }
            }
        });
        part
    }

    /// The sum over batch and pixels.
    pub(super) fn bias_gradient(&self, gradient: &[f32]) -> Vec<f32> {
        const CHANNELS: usize = 8;
        let mut sums = vec![0.0; self.output];
        sums.par_chunks_mut(CHANNELS).enumerate().for_each(|(task, sums)| {
            for image in gradient.chunks(self.output * self.pixels()) {
                add_planes(&image[task * CHANNELS * self.pixels()..], self.pixels(), sums);
            }
        });
        sums
    }
}

/// Adds the sum of each plane.
#[pulp::with_simd(add_planes = Arch::new())]
#[inline(always)]
fn add_planes_with_simd<'a, S: Simd>(simd: S, planes: &'a [f32], pixels: usize, sums: &'a mut [f32]) {
    for (plane, to) in planes.chunks_exact(pixels).zip(sums) {
        *to += sum(simd, plane);
    }
}
