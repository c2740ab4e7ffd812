//! 3x3 convolution with Winograd's minimal filtering, F(2x2, 3x3): a 2x2 tile of outputs takes 16 multiplications for
//! each pair of channels, where the columns take 36 (Lavin and Gray 2016, section 4.1).
//!
//! With the kernel g, the 4x4 inputs d under a tile and its outputs y, `y = A^T [(G g G^T) . (B^T d B)] A`. Over all
//! tiles and channels the dot becomes sixteen matrix products `M = U V`, one for each position of a 4x4 tile. All these
//! maps are linear, and backward applies their transposes in reverse order: `dM = A dy A^T`, `dV = U^T dM`,
//! `dU = dM V^T`, `dd = B dV B^T` (added where tiles overlap), `dg = G^T dU G`.
//!
//! In an upsampled image all inputs come in pairs, so the middle two of a tile are equal. Seven of the sixteen
//! positions then vanish, and nine remain: 9 multiplications instead of 36, and the upsampled image is never stored.

mod geometry;
mod halves;
mod transform;

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Matrix, TASKS, Write, product};
use super::weight::Weight;
use super::{filled, scratch};
use geometry::TILES;
pub(in crate::nn::cpu) use geometry::Winograd;

/// Additional elements between two channels of a block: rows whose distance is a power of two would share cache lines.
const PAD: usize = 16;

impl Winograd {
    /// The outputs [images, output, h, w] of x [images, input, ..] and weight [output, input, 3, 3].
    pub(super) fn convolve(&self, x: &[f32], weight: Weight, bias: &[f32]) -> Vec<f32> {
        let of_output = self.output * self.output_plane();
        filled(self.images * of_output, |out| self.write_outputs(x, weight, bias, out))
    }

    fn write_outputs(&self, x: &[f32], weight: Weight, bias: &[f32], out: &mut [f32]) {
        let (of_input, of_output) = (self.input * self.input_plane(), self.output * self.output_plane());
        if let Some(group) = self.group() {
            self.transformed(weight, |u| {
                let groups = out.par_chunks_mut(group * of_output).zip(x.par_chunks(group * of_input));
                groups.for_each(|(out, x)| {
                    let images = out.len() / of_output;
                    Self { images, ..*self }.convolve_blocks(
                        x,
                        Kernels::Transformed(u),
                        bias,
                        out,
                        self.output,
                    );
                });
            });
        } else if self.block_rows() == self.images * self.rows() {
            // Each task needs its part of the transformed weights once, so they are never all stored.
            self.convolve_blocks(x, Kernels::Plain(weight), bias, out, share(self.output));
        } else {
            self.transformed(weight, |u| {
                self.convolve_blocks(x, Kernels::Transformed(u), bias, out, share(self.output));
            });
        }
    }

    /// Number of images per task if there are enough images to split the work by images alone.
    fn group(&self) -> Option<usize> {
        let tiles = self.rows() * self.columns();
        (self.images >= TASKS / 2).then(|| (TILES / 2 / tiles).clamp(1, self.images.div_ceil(TASKS / 2)))
    }

    /// Lends the transformed weights, [output][positions][input].
    fn transformed<R>(&self, weight: Weight, work: impl FnOnce(&[f32]) -> R) -> R {
        scratch(self.output * self.kernels(), |u| {
            let share = share(self.output);
            u.par_chunks_mut(share * self.kernels()).enumerate().for_each(|(task, u)| {
                let first = task * share;
                self.transform(weight, first..first + u.len() / self.kernels(), u);
            });
            work(u)
        })
    }

    /// The transformed weights of a range of output channels.
    fn transform(&self, weight: Weight, outputs: Range<usize>, u: &mut [f32]) {
        let kernels = self.input * 9;
        let part = outputs.start * kernels..outputs.end * kernels;
        weight.lend(part, |weight| self.transform_weights(weight, u));
    }

    /// Processes one block of tiles after another: transforms the inputs, then computes `share` output channels per
    /// task.
    fn convolve_blocks(&self, x: &[f32], kernels: Kernels, bias: &[f32], out: &mut [f32], share: usize) {
        let plane = self.output_plane();
        let mut parts = by_channels(out, self.output * plane, share * plane);
        for rows in self.blocks() {
            let (tiles, channel) = self.sizes(&rows);
            scratch(self.input * channel, |v| {
                self.gather_inputs(x, &rows, v, share);
                parts.par_iter_mut().enumerate().for_each(|(task, planes)| {
                    let first = task * share;
                    let count = share.min(self.output - first);
                    kernels.lend(self, first..first + count, |u| {
                        scratch(count * channel, |m| {
                            for position in 0..self.positions() {
                                let u = Matrix {
                                    data: &u[position * self.input..],
                                    row: self.kernels(),
                                    column: 1,
                                };
                                let v = Matrix { data: &v[position * tiles..], row: channel, column: 1 };
                                let m = &mut m[position * tiles..];
                                product([count, tiles, self.input], u, v, m, channel, Write::Set, 1.0);
                            }
                            for (index, m) in m.chunks(channel).enumerate() {
                                self.scatter_output(m, &rows, bias[first + index], planes, index * plane);
                            }
                        })
                    });
                });
            });
        }
    }

    /// The gradient of x, for `dy` [images, output, h, w].
    pub(super) fn input_gradient(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        let (of_input, of_output) = (self.input * self.input_plane(), self.output * self.output_plane());
        let write = |u: &[f32], out: &mut [f32]| match self.group() {
            Some(group) => {
                let groups = out.par_chunks_mut(group * of_input).zip(dy.par_chunks(group * of_output));
                groups.for_each(|(out, dy)| {
                    let images = out.len() / of_input;
                    Self { images, ..*self }.input_gradient_blocks(dy, u, out, self.input);
                });
            }
            None => self.input_gradient_blocks(dy, u, out, share(self.input)),
        };
        filled(self.images * of_input, |out| self.transformed(Weight::F32(weight), |u| write(u, out)))
    }

    fn input_gradient_blocks(&self, dy: &[f32], u: &[f32], out: &mut [f32], share: usize) {
        let plane = self.input_plane();
        let mut parts = by_channels(out, self.input * plane, share * plane);
        parts.par_iter_mut().flatten().for_each(|part| part.fill(0.0));
        for rows in self.blocks() {
            let (tiles, channel) = self.sizes(&rows);
            scratch(self.output * channel, |dm| {
                self.gather_outputs(dy, &rows, dm, share);
                parts.par_iter_mut().enumerate().for_each(|(task, planes)| {
                    let first = task * share;
                    let count = share.min(self.input - first);
                    scratch(count * channel, |dv| {
                        for position in 0..self.positions() {
                            let u = Matrix {
                                data: &u[position * self.input + first..],
                                row: 1,
                                column: self.kernels(),
                            };
                            let dm = Matrix { data: &dm[position * tiles..], row: channel, column: 1 };
                            let dv = &mut dv[position * tiles..];
                            product([count, tiles, self.output], u, dm, dv, channel, Write::Set, 1.0);
                        }
                        for (index, dv) in dv.chunks(channel).enumerate() {
                            self.scatter_input(dv, &rows, planes, index * plane);
                        }
                    });
                });
            });
        }
    }

    /// The gradient of the weight, for `dy` [images, output, h, w] and the input x.
    pub(super) fn weight_gradient(&self, dy: &[f32], x: &[f32]) -> Vec<f32> {
        let matrix = self.output * self.input;
        let write = |du: &mut [f32], gradient: &mut [f32]| {
            for (block, rows) in self.blocks().enumerate() {
                let (tiles, channel) = self.sizes(&rows);
                let write = if block == 0 { Write::Set } else { Write::Add };
                scratch((self.input + self.output) * channel, |buffer| {
                    let (v, dm) = buffer.split_at_mut(self.input * channel);
                    self.gather_inputs(x, &rows, v, share(self.input));
                    self.gather_outputs(dy, &rows, dm, share(self.output));
                    let (v, dm) = (&*v, &*dm);
                    du.par_chunks_mut(matrix).enumerate().for_each(|(position, du)| {
                        let share = share(self.output);
                        du.par_chunks_mut(share * self.input).enumerate().for_each(|(task, du)| {
                            let dm = &dm[task * share * channel + position * tiles..];
                            let dm = Matrix { data: dm, row: channel, column: 1 };
                            let v = Matrix { data: &v[position * tiles..], row: 1, column: channel };
                            let shape = [du.len() / self.input, self.input, tiles];
                            product(shape, dm, v, du, self.input, write, 1.0);
                        });
                    });
                });
            }
            let du = &*du;
            let rows = gradient.par_chunks_mut(self.input * 9).with_min_len(4).enumerate();
            rows.for_each(|(output, row)| self.fold_weights(du, output, row));
        };
        filled(matrix * 9, |gradient| scratch(self.positions() * matrix, |du| write(du, gradient)))
    }

    /// The number of tiles in a range of rows, and the elements per channel for that many tiles.
    fn sizes(&self, rows: &Range<usize>) -> (usize, usize) {
        let tiles = rows.len() * self.columns();
        (tiles, self.positions() * tiles + PAD)
    }

    /// `V = B^T d B` for all input channels and the tiles of `rows`.
    fn gather_inputs(&self, x: &[f32], rows: &Range<usize>, v: &mut [f32], share: usize) {
        let (plane, channel) = (self.input_plane(), self.sizes(rows).1);
        let step = self.input * plane;
        v.par_chunks_mut(share * channel).enumerate().for_each(|(task, v)| {
            for (index, v) in v.chunks_mut(channel).enumerate() {
                self.gather_input(&x[(task * share + index) * plane..], step, rows, v);
            }
        });
    }

    /// `dM = A dy A^T` for all output channels and the tiles of `rows`.
    fn gather_outputs(&self, dy: &[f32], rows: &Range<usize>, dm: &mut [f32], share: usize) {
        let (plane, channel) = (self.output_plane(), self.sizes(rows).1);
        let step = self.output * plane;
        dm.par_chunks_mut(share * channel).enumerate().for_each(|(task, dm)| {
            for (index, dm) in dm.chunks_mut(channel).enumerate() {
                self.gather_output(&dy[(task * share + index) * plane..], step, rows, dm);
            }
        });
    }
}

/// The weights of a convolution, before or after their transform.
#[derive(Clone, Copy)]
enum Kernels<'a> {
    /// Untransformed, [output, input, 3, 3]: they are transformed on demand.
    Plain(Weight<'a>),
    /// [output, positions, input]
    Transformed(&'a [f32]),
}

impl Kernels<'_> {
    /// Lends the transformed weights of a range of output channels.
    fn lend<R>(self, winograd: &Winograd, outputs: Range<usize>, work: impl FnOnce(&[f32]) -> R) -> R {
        let whole = winograd.kernels();
        match self {
            Self::Transformed(u) => work(&u[outputs.start * whole..outputs.end * whole]),
            Self::Plain(weight) => scratch(outputs.len() * whole, |u| {
                winograd.transform(weight, outputs, u);
                work(u)
            }),
        }
    }
}

/// Channels per task out of `channels`.
fn share(channels: usize) -> usize {
    channels.div_ceil(TASKS).next_multiple_of(16)
}

/// Splits images of `step` elements into ranges of channels of `part` elements: for each range, its part of each image.
fn by_channels(pictures: &mut [f32], step: usize, part: usize) -> Vec<Vec<&mut [f32]>> {
    let mut parts: Vec<Vec<&mut [f32]>> = (0..step.div_ceil(part)).map(|_| Vec::new()).collect();
    for picture in pictures.chunks_mut(step) {
        parts.iter_mut().zip(picture.chunks_mut(part)).for_each(|(parts, part)| parts.push(part));
    }
    parts
}
