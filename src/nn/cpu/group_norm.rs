//! Group normalisation, optionally followed by a SiLU, one group of one sample at a time.

use std::sync::OnceLock;

use candle_core::{Result, Shape, Tensor};
use pulp::{Arch, Simd};
use rayon::prelude::*;

use super::math::sigmoid;
use super::reduce::{Moments, WithNormal, sum_of_rows, sums};
use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Operands: x [batch, channels, ..], weight [channels], bias [channels].
pub(in crate::nn) struct GroupNorm {
    groups: usize,
    eps: f32,
    silu: bool,
    /// For each group of each sample.
    moments: OnceLock<Vec<Moments>>,
}

/// Minimum number of elements per task.
const TASK_ELEMENTS: usize = 1 << 13;

/// How x is split: a block is one group of one sample.
struct Blocks {
    channels: usize,
    per_group: usize,
    plane: usize,
    tasks_of: usize,
}

impl GroupNorm {
    pub(in crate::nn) fn new(groups: usize, eps: f32, silu: bool) -> Self {
        Self { groups, eps, silu, moments: OnceLock::new() }
    }

    fn blocks(&self, shape: &Shape) -> Blocks {
        let channels = shape.dims()[1];
        let per_group = channels / self.groups;
        let plane: usize = shape.dims()[2..].iter().product();
        Blocks { channels, per_group, plane, tasks_of: TASK_ELEMENTS.div_ceil((per_group * plane).max(1)) }
    }
}

impl Blocks {
    /// Elements per block.
    fn size(&self) -> usize {
        (self.per_group * self.plane).max(1)
    }

    /// The range of channels of block `index`, for indexing per-channel slices.
    fn of<'a>(&self, index: usize, per_channel: &'a [f32]) -> &'a [f32] {
        let first = index * self.per_group % self.channels;
        &per_channel[first..first + self.per_group]
    }
}

impl Operation<3> for GroupNorm {
    fn forward(&self, [x, weight, bias]: &[Tensor; 3]) -> Result<Output> {
        let (shape, x) = (x.shape(), elements(x)?);
        let (weight_data, bias_data) = (elements(weight)?, elements(bias)?);
        let (weight, bias): (&[f32], &[f32]) = (&weight_data, &bias_data);
        let blocks = self.blocks(shape);
        let mut moments = vec![Moments::default(); x.len() / blocks.size()];
        let out = filled(x.len(), |out| {
            let tasks = out.par_chunks_mut(blocks.size()).zip(x.par_chunks(blocks.size())).zip(&mut moments);
            tasks.enumerate().with_min_len(blocks.tasks_of).for_each(|(index, ((out, x), moments))| {
                let (weight, bias) = (blocks.of(index, weight), blocks.of(index, bias));
                *moments = forward_block(self, x, weight, bias, out);
            });
        });
        self.moments.set(moments).ok().expect("BUG: an operation ran twice");
        Ok(Output::numbers(out, shape))
    }

    fn backward(
        &self,
        [x, weight, bias]: &[Tensor; 3],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let (x_data, weight_data) = (elements(x)?, elements(weight)?);
        let (bias_data, g) = (elements(bias)?, elements(gradient)?);
        let (weights, biases): (&[f32], &[f32]) = (&weight_data, &bias_data);
        let blocks = self.blocks(x.shape());
        let moments = self.moments.get().expect("BUG: backward ran before forward");
        // Per sample and channel; summed over the batch below.
        let mut weight_sums = vec![0.0; x.dims()[0] * blocks.channels];
        let mut bias_sums = weight_sums.clone();
        let x_gradient = filled(x_data.len(), |x_gradient| {
            let sums = weight_sums.par_chunks_mut(blocks.per_group);
            let sums = sums.zip(bias_sums.par_chunks_mut(blocks.per_group));
            let inputs = x_data.par_chunks(blocks.size()).zip(g.par_chunks(blocks.size()));
            let tasks = x_gradient.par_chunks_mut(blocks.size()).zip(inputs).zip(sums).enumerate();
            tasks.with_min_len(blocks.tasks_of).for_each(
                |(index, ((out, (x, g)), (weight_sums, bias_sums)))| {
                    let block = Block {
                        x,
                        g,
                        moments: moments[index],
                        weight: blocks.of(index, weights),
                        bias: blocks.of(index, biases),
                    };
                    backward_block(self, block, out, weight_sums, bias_sums);
                },
            );
        });
        Ok([
            gradient_of(x, of_x, || x_gradient)?,
            gradient_of(weight, of_weight, || sum_of_rows(&weight_sums, blocks.channels))?,
            gradient_of(bias, of_bias, || sum_of_rows(&bias_sums, blocks.channels))?,
        ])
    }
}

/// The inputs of backward for one group of one sample.
struct Block<'a> {
    x: &'a [f32],
    /// The gradient of the output.
    g: &'a [f32],
    moments: Moments,
    weight: &'a [f32],
    bias: &'a [f32],
}

#[pulp::with_simd(forward_block = Arch::new())]
#[inline(always)]
fn forward_block_with_simd<'a, S: Simd>(
    simd: S,
    norm: &'a GroupNorm,
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
) -> Moments {
    let moments = Moments::of(simd, x, norm.eps);
    let plane = x.len() / weight.len();
    let lines = out.chunks_mut(plane).zip(x.chunks(plane)).zip(weight.iter().zip(bias));
    for ((out, x), (weight, bias)) in lines {
        let slope = weight * moments.scale;
        if norm.silu {
            out.iter_mut().zip(x).for_each(|(out, x)| {
                let y = (x - moments.mean) * slope + bias;
                *out = y * sigmoid(y);
            });
        } else {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - moments.mean) * slope + bias);
        }
    }
    moments
}

/// With n = (x - mean) scale, y = w n + b and g' = dL/dy: dL/dw = sum g' n, dL/db = sum g', and dL/dx = scale (w g' -
/// mean(w g') - n mean(w g' n)). With a SiLU, `out` stores the intermediate g'.
#[pulp::with_simd(backward_block = Arch::new())]
#[inline(always)]
fn backward_block_with_simd<'a, S: Simd>(
    simd: S,
    norm: &'a GroupNorm,
    block: Block<'a>,
    out: &'a mut [f32],
    weight_sums: &'a mut [f32],
    bias_sums: &'a mut [f32],
) {
    let Block { x, g, moments, weight, bias } = block;
    let (plane, count) = (x.len() / weight.len(), x.len() as f32);
    let (mut mean_g, mut mean_gn) = (0.0, 0.0);
    for channel in 0..weight.len() {
        let line = channel * plane..(channel + 1) * plane;
        let (weight, bias) = (weight[channel], bias[channel]);
        let (x, mut g) = (&x[line.clone()], &g[line.clone()]);
        if norm.silu {
            let out = &mut out[line];
            out.iter_mut().zip(x.iter().zip(g)).for_each(|(out, (x, g))| {
                let y = weight * moments.normal(*x) + bias;
                let s = sigmoid(y);
                *out = g * s * (1.0 + y * (1.0 - s));
            });
            g = out;
        }
        let [of_g, of_gn] = sums(simd, [x, g], WithNormal(moments));
        (bias_sums[channel], weight_sums[channel]) = (of_g, of_gn);
        mean_g += weight * of_g / count;
        mean_gn += weight * of_gn / count;
    }
    let lines = out.chunks_mut(plane).zip(x.chunks(plane).zip(g.chunks(plane)));
    for ((out, (x, g)), weight) in lines.zip(weight) {
        let inner = |x: f32, g: f32| moments.scale * (weight * g - mean_g - moments.normal(x) * mean_gn);
        if norm.silu {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = inner(*x, *out));
        } else {
            out.iter_mut().zip(x.iter().zip(g)).for_each(|(out, (x, g))| *out = inner(*x, *g));
        }
    }
}
