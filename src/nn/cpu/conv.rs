//! Convolution as a matrix product over the columns of the input; 3x3 layers with few channels use the direct method,
//! those with many channels Winograd's.
//!
//! For large batches, each core processes different images; small images share one product, because a product of 4 or
//! 16 pixels spends its time on packing the weights. A few large images are processed one after the other, with their
//! channels distributed over the cores.

use candle_core::{DType, Result, Shape, Tensor};
use rayon::prelude::*;

use super::columns::Geometry;
use super::direct::Direct;
use super::gemm::{Matrix, SERIAL, TASKS, Write, product};
use super::halves::Unit;
use super::weight::Weight;
use super::winograd::Winograd;
use super::{elements, filled, scratch};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Operands: x [batch, in, h, w], weight [out, in, kernel, kernel], bias [out].
pub(in crate::nn) struct Conv2d {
    pub(in crate::nn) stride: usize,
    pub(in crate::nn) padding: usize,
    /// Whether x is first upsampled by two; only with a geometry that [`Winograd`] supports.
    pub(in crate::nn) upsampled: bool,
}

/// The method by which a convolution is computed.
enum Method {
    Direct(Direct),
    Winograd(Winograd),
    Columns,
}

/// Maximum number of input and output channels for the direct method: with 80 and 48 channels it takes half the time of
/// either Winograd's method or the columns; with 320, Winograd's method is faster than both (two cores of an EPYC 9005,
/// 2026-11).
const FEW: usize = 96;
/// Number of pixels from which Winograd's method is faster than the columns.
const PIXELS: usize = 512;
/// The same for weights in bf16: products take half the time, transforms as long, and with the tiles of AMX never. 2 images of 1,280 channels and 16 x 16 pixels
/// took 50 ms of one core by Winograd's method and 39 by the columns, one of 640 channels and 32 x 32 pixels 18 and 20 (AMD EPYC
/// 9005, 2026-11).
const PIXELS_OF_HALVES: usize = 1024;
/// Minimum number of pixels in a product, reached by joining small images.
pub(super) const SHARED_PIXELS: usize = 128;
/// Pixels per block of columns: with 96 or 256, with which the columns fit in the L2 cache, a 3x3 layer with 320
/// channels and stride 2 took 1.3 times as long, because the weights were packed more often.
const TILE_PIXELS: usize = 512;
/// Elements per block of columns in backward: they fit in a core's L2 cache (1 MiB and more since 2017).
pub(super) const COLUMN_ELEMENTS: usize = 1 << 18;

impl Conv2d {
    fn geometry(&self, x: &Shape, weight: &Shape) -> Result<Geometry> {
        let ((batch, input, height, width), (output, _, kernel, _)) = (x.dims4()?, weight.dims4()?);
        let scale = if self.upsampled { 2 } else { 1 };
        let (height, width) = (scale * height, scale * width);
        let outputs = |size: usize| (size + 2 * self.padding - kernel) / self.stride + 1;
        Ok(Geometry {
            batch,
            input,
            height,
            width,
            output,
            kernel,
            stride: self.stride,
            padding: self.padding,
            out_height: outputs(height),
            out_width: outputs(width),
        })
    }

    /// The fastest method, for products of bf16 or not.
    fn method(&self, geometry: &Geometry, halves: Option<Unit>) -> Method {
        let pixels = match halves {
            None => PIXELS,
            Some(unit) if unit.has_tiles() => usize::MAX,
            Some(_) => PIXELS_OF_HALVES,
        };
        let Geometry { batch: images, input, output, height, width, .. } = *geometry;
        let winograd = Winograd { images, input, output, height, width, upsampled: self.upsampled };
        match [geometry.kernel, geometry.stride, geometry.padding] {
            _ if self.upsampled => Method::Winograd(winograd),
            [3, 1, 1] if input.min(output) <= FEW => {
                Method::Direct(Direct { images, input, output, height, width })
            }
            [3, 1, 1] if images * geometry.pixels() >= pixels => Method::Winograd(winograd),
            _ => Method::Columns,
        }
    }
}

impl Operation<3> for Conv2d {
    fn forward(&self, [x, weight, bias]: &[Tensor; 3]) -> Result<Output> {
        let geometry = self.geometry(x.shape(), weight.shape())?;
        let (x, bias) = (elements(x)?, elements(bias)?);
        let (storage, layout) = weight.storage_and_layout();
        let weight = Weight::of(&storage, layout)?;
        let y = match self.method(&geometry, weight.halves().map(|(unit, _)| unit)) {
            Method::Winograd(winograd) => match weight.halves() {
                Some((unit, _)) => winograd.convolve_halves(unit, &x, weight, &bias),
                None => winograd.convolve(&x, weight, &bias),
            },
            Method::Direct(direct) => weight.lend_all(|weight| direct.convolve(&x, weight, &bias)),
            Method::Columns => match weight.halves() {
                Some((unit, weight)) => geometry.convolve_halves(unit, &x, weight, &bias),
                None => weight.lend_all(|weight| geometry.convolve(&x, weight, &bias)),
            },
        };
        let shape = (geometry.batch, geometry.output, geometry.out_height, geometry.out_width);
        Ok(Output::numbers(y, shape))
    }

    fn backward(
        &self,
        [x, weight, bias]: &[Tensor; 3],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let geometry = self.geometry(x.shape(), weight.shape())?;
        let method = self.method(&geometry, None);
        let wide = weight.to_dtype(DType::F32)?;
        let (x_data, weight_data, g) = (elements(x)?, elements(&wide)?, elements(gradient)?);
        Ok([
            gradient_of(x, of_x, || match &method {
                Method::Direct(direct) => direct.input_gradient(&g, &weight_data),
                Method::Winograd(winograd) => winograd.input_gradient(&g, &weight_data),
                Method::Columns => geometry.input_gradient(&g, &weight_data),
            })?,
            gradient_of(weight, of_weight, || match &method {
                Method::Direct(direct) => direct.weight_gradient(&g, &x_data),
                Method::Winograd(winograd) => winograd.weight_gradient(&g, &x_data),
                Method::Columns => geometry.weight_gradient(&g, &x_data),
            })?,
            gradient_of(bias, of_bias, || geometry.bias_gradient(&g))?,
        ])
    }
}

impl Geometry {
    /// Whether the work is split by images (or groups of small images) instead of channels.
    pub(super) fn cuts_batch(&self) -> bool {
        self.batch >= TASKS / 2 || self.macs() <= SERIAL
    }

    /// How many images share one product.
    pub(super) fn group(&self) -> usize {
        (SHARED_PIXELS / self.pixels()).clamp(1, self.batch.div_ceil(TASKS / 2))
    }

    /// Output rows per block of columns.
    pub(super) fn tile_rows(&self) -> usize {
        (TILE_PIXELS / self.out_width).clamp(1, self.out_height)
    }

    fn convolve(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let (image_in, image_out) = (self.input * self.plane(), self.output * self.pixels());
        filled(self.batch * image_out, |out| {
            if self.cuts_batch() {
                let group = self.group();
                let groups = out.par_chunks_mut(group * image_out).zip(x.par_chunks(group * image_in));
                groups.for_each(|(out, x)| {
                    if out.len() == image_out {
                        self.convolve_image(x, weight, bias, out, self.output);
                    } else {
                        self.convolve_group(x, weight, bias, out);
                    }
                });
            } else {
                let channels = self.output.div_ceil(TASKS).next_multiple_of(8);
                for (out, x) in out.chunks_mut(image_out).zip(x.chunks(image_in)) {
                    self.convolve_image(x, weight, bias, out, channels);
                }
            }
        })
    }

    /// Computes one image in tiles of rows, with `channels` output channels per task.
    fn convolve_image(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32], channels: usize) {
        let (pixels, depth) = (self.pixels(), self.depth());
        for (out, bias) in out.chunks_mut(pixels).zip(bias) {
            out.fill(*bias);
        }
        let multiply = |columns: Matrix, start: usize, count: usize, out: &mut [f32]| {
            out.par_chunks_mut(channels * pixels).enumerate().for_each(|(block, out)| {
                let shape = [out.len() / pixels, count, depth];
                let weight = Matrix::rows(weight, depth).from(block * channels, 0);
                product(shape, weight, columns, &mut out[start..], pixels, Write::Add, 1.0);
            });
        };
        if self.is_pointwise() {
            return multiply(Matrix::rows(x, pixels), 0, pixels, out);
        }
        let rows = self.tile_rows();
        scratch(depth * rows * self.out_width, |columns| {
            for first in (0..self.out_height).step_by(rows) {
                let tile = first..(first + rows).min(self.out_height);
                let count = tile.len() * self.out_width;
                // If one task computes all output channels, one task also gathers all columns.
                let share = if channels == self.output { self.input } else { self.input.div_ceil(TASKS) };
                columns[..depth * count]
                    .par_chunks_mut(share * self.taps() * count)
                    .zip(x.par_chunks(share * self.plane()))
                    .for_each(|(columns, planes)| self.gather(planes, tile.clone(), columns, count));
                multiply(Matrix::rows(columns, count), first * self.out_width, count, out);
            }
        });
    }

    /// Computes several small images in one product.
    fn convolve_group(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let depth = self.depth();
        let width = out.len() / self.output;
        scratch((depth + self.output) * width, |buffer| {
            let (columns, result) = buffer.split_at_mut(depth * width);
            self.gather_group(x, self.input, columns, width);
            let columns = Matrix::rows(columns, width);
            product(
                [self.output, width, depth],
                Matrix::rows(weight, depth),
                columns,
                result,
                width,
                Write::Set,
                1.0,
            );
            self.split_group(result, bias, out);
        });
    }

    /// The outputs [images, out, pixels] plus the bias, from a product [out, images * pixels].
    pub(super) fn split_group(&self, product: &[f32], bias: &[f32], out: &mut [f32]) {
        let (pixels, width) = (self.pixels(), product.len() / self.output);
        for (image, out) in out.chunks_mut(self.output * pixels).enumerate() {
            let rows = product.chunks(width).zip(bias);
            for (out, (row, bias)) in out.chunks_mut(pixels).zip(rows) {
                out.iter_mut().zip(&row[image * pixels..]).for_each(|(to, from)| *to = from + bias);
            }
        }
    }

    /// The columns of several images side by side; from each image, `channels` channels from the start of its part of
    /// `x`.
    pub(super) fn gather_group(&self, x: &[f32], channels: usize, columns: &mut [f32], width: usize) {
        for (image, x) in x.chunks(self.input * self.plane()).enumerate() {
            let planes = &x[..channels * self.plane()];
            self.gather(planes, 0..self.out_height, &mut columns[image * self.pixels()..], width);
        }
    }
}
