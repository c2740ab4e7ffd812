//! The forward pass with products of bf16 operands: both transforms are computed in f32, and their results rounded.
//!
//! The transforms add up to four numbers in each direction before they are rounded, so the error is 5 / 3 of that of the columns
//! (root mean square, for independent numbers; (5 / 3)^2 is 25 / 9, the number of terms of both methods).

use std::ops::Range;

use rayon::prelude::*;

use super::super::gemm::Write;
use super::super::halves::{Left, Packing, Right, Unit, halves, pairs};
use super::super::pieces::{cut, each};
use super::super::weight::Weight;
use super::super::window::Window;
use super::super::{filled, scratch};
use super::Winograd;

/// Output channels of a unit in which the work is cut: two tiles of a product. Each piece reads the transforms of all inputs.
const OUTPUTS: usize = 12;
/// Units of a piece where there is enough work.
const LEAST: usize = 2;

/// The weights of a layer.
#[derive(Clone, Copy)]
struct Kernels<'a> {
    unit: Unit,
    weight: Weight<'a>,
    /// Their transforms in bf16, [output][positions][input], if there are several blocks of tiles.
    transformed: Option<&'a [u16]>,
}

impl Winograd {
    /// Like [`Self::convolve`], for weights in bf16.
    pub(in crate::nn::cpu) fn convolve_halves(
        &self,
        unit: Unit,
        x: &[f32],
        weight: Weight,
        bias: &[f32],
    ) -> Vec<f32> {
        let kernels = Kernels { unit, weight, transformed: None };
        filled(self.images * self.output * self.output_plane(), |out| {
            if self.block_rows() == self.images * self.rows() {
                return self.halves_of_blocks(kernels, x, bias, out);
            }
            let whole = self.rounded_kernels();
            halves(self.output * whole, |u| {
                u.par_chunks_mut(whole).enumerate().for_each(|(output, u)| {
                    self.transform_rounded(unit, weight, output..output + 1, u);
                });
                self.halves_of_blocks(Kernels { transformed: Some(u), ..kernels }, x, bias, out);
            });
        })
    }

    /// Elements between two positions of one output channel's transformed weights.
    fn rounded_step(&self) -> usize {
        self.input.next_multiple_of(2)
    }

    fn rounded_kernels(&self) -> usize {
        self.positions() * self.rounded_step()
    }

    /// The transformed weights of a range of output channels, rounded.
    fn transform_rounded(&self, unit: Unit, weight: Weight, outputs: Range<usize>, u: &mut [u16]) {
        scratch(self.kernels(), |wide| {
            for (output, u) in outputs.zip(u.chunks_exact_mut(self.rounded_kernels())) {
                self.transform(weight, output..output + 1, wide);
                let positions = u.chunks_exact_mut(self.rounded_step()).zip(wide.chunks_exact(self.input));
                positions.for_each(|(to, from)| {
                    unit.round(from, 1.0, &mut to[..self.input]);
                    to[self.input..].fill(0);
                });
            }
        });
    }

    /// Processes one block of tiles after another: transforms and packs the inputs, then computes the output channels.
    fn halves_of_blocks(&self, kernels: Kernels, x: &[f32], bias: &[f32], out: &mut [f32]) {
        let pieces = cut(self.output.div_ceil(OUTPUTS), rayon::current_num_threads(), LEAST);
        let outputs = |blocks: Range<usize>| blocks.start * OUTPUTS..(blocks.end * OUTPUTS).min(self.output);
        let pieces: Vec<Range<usize>> = pieces.into_iter().map(outputs).collect();
        for rows in self.blocks() {
            let (tiles, channel) = self.sizes(&rows);
            let chunk = kernels.unit.transforms();
            let one = Packing::elements(chunk, tiles);
            let stride = self.positions() * one;
            let packing = Packing { depth: self.input, columns: tiles, chunk, stride };
            pairs(packing.length(), |v| {
                self.pack_inputs(kernels.unit, &packing, x, &rows, v);
                let parts = self.by_outputs(out, &pieces);
                each(pieces.iter().cloned().zip(parts).collect(), |(outputs, mut planes)| {
                    kernels.lend(self, outputs.clone(), |u| {
                        scratch(outputs.len() * channel, |m| {
                            for position in 0..self.positions() {
                                let left = &u[position * self.rounded_step()..];
                                let left = Left { data: left, step: self.rounded_kernels(), padded: false };
                                let right = Right { data: &v[position * one..], packing };
                                let mut m =
                                    Window::new(&mut m[position * tiles..], channel, [outputs.len(), tiles]);
                                kernels.unit.multiply(left, right, 0, Write::Set, &mut m);
                            }
                            let plane = self.output_plane();
                            for (index, m) in m.chunks(channel).enumerate() {
                                let bias = bias[outputs.start + index];
                                self.scatter_output(m, &rows, bias, &mut planes, index * plane);
                            }
                        });
                    });
                });
            });
        }
    }

    /// `B^T d B` for all input channels and the tiles of `rows`, packed: [chunk][position][panel][pair][column].
    fn pack_inputs(&self, unit: Unit, packing: &Packing, x: &[f32], rows: &Range<usize>, v: &mut [u32]) {
        let (plane, (tiles, channel)) = (self.input_plane(), self.sizes(rows));
        let step = self.input * plane;
        v.par_chunks_mut(packing.stride).enumerate().for_each(|(task, to)| {
            let first = task * packing.chunk;
            let channels = packing.chunk.min(self.input - first);
            scratch(channels * channel, |v| {
                for (index, v) in v.chunks_mut(channel).enumerate() {
                    self.gather_input(&x[(first + index) * plane..], step, rows, v);
                }
                for (position, to) in to.chunks_mut(packing.stride / self.positions()).enumerate() {
                    unit.pack_rows(packing, &v[position * tiles..], channel, channels, to);
                }
            });
        });
    }

    /// For each range of output channels, its planes in every image.
    fn by_outputs<'a>(&self, out: &'a mut [f32], pieces: &[Range<usize>]) -> Vec<Vec<&'a mut [f32]>> {
        let mut parts: Vec<Vec<&mut [f32]>> = pieces.iter().map(|_| Vec::new()).collect();
        for mut picture in out.chunks_mut(self.output * self.output_plane()) {
            for (parts, piece) in parts.iter_mut().zip(pieces) {
                let planes = picture.split_off_mut(..piece.len() * self.output_plane());
                parts.push(planes.expect("BUG: the pieces exceed the output channels"));
            }
        }
        parts
    }
}

impl Kernels<'_> {
    /// Lends the rounded transforms of a range of output channels.
    fn lend<R>(self, winograd: &Winograd, outputs: Range<usize>, work: impl FnOnce(&[u16]) -> R) -> R {
        let whole = winograd.rounded_kernels();
        match self.transformed {
            Some(u) => work(&u[outputs.start * whole..outputs.end * whole]),
            None => halves(outputs.len() * whole, |u| {
                winograd.transform_rounded(self.unit, self.weight, outputs, u);
                work(u)
            }),
        }
    }
}
