//! Group normalisation with an optional SiLU behind it, one pass per group.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::math::sigmoid;
use super::reduce::{dot, mean_and_scale, sum, sum_of_rows};
use super::simd::widest;
use super::{elements, filled, for_tracked, operand, scratch};

/// Operands: x [batch, channels, ..], weight [channels], bias [channels].
pub(in crate::nn) struct GroupNorm {
    pub(in crate::nn) groups: usize,
    pub(in crate::nn) eps: f32,
    pub(in crate::nn) silu: bool,
}

/// Elements that a task should have at least.
const TASK_ELEMENTS: usize = 1 << 13;

/// How x is cut: a block is one group of one sample.
struct Blocks {
    channels: usize,
    per_group: usize,
    plane: usize,
    tasks_of: usize,
}

impl GroupNorm {
    fn blocks(&self, shape: &Shape) -> Blocks {
        let channels = shape.dims()[1];
        let per_group = channels / self.groups;
        let plane: usize = shape.dims()[2..].iter().product();
        Blocks { channels, per_group, plane, tasks_of: TASK_ELEMENTS.div_ceil((per_group * plane).max(1)) }
    }
}

impl Blocks {
    /// Elements of a block.
    fn size(&self) -> usize {
        (self.per_group * self.plane).max(1)
    }

    /// The channels of block `index`, as a part of a per-channel slice.
    fn of<'a>(&self, index: usize, per_channel: &'a [f32]) -> &'a [f32] {
        let first = index * self.per_group % self.channels;
        &per_channel[first..first + self.per_group]
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = operand(self.name(), x, x_layout)?;
        let weight = operand(self.name(), weight, weight_layout)?;
        let bias = operand(self.name(), bias, bias_layout)?;
        let blocks = self.blocks(x_layout.shape());
        let out = filled(x.len(), |out| {
            let tasks = out.par_chunks_mut(blocks.size()).zip(x.par_chunks(blocks.size()));
            tasks.enumerate().with_min_len(blocks.tasks_of).for_each(|(index, (out, x))| {
                let (weight, bias) = (blocks.of(index, weight), blocks.of(index, bias));
                widest(
                    #[inline(always)]
                    || self.forward_block(x, weight, bias, out),
                );
            });
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_data, weight_data) = (elements(x)?, elements(weight)?);
        let (bias_data, g) = (elements(bias)?, elements(&gradient)?);
        let (weights, biases): (&[f32], &[f32]) = (&weight_data, &bias_data);
        let blocks = self.blocks(x.shape());
        // Per sample and channel, summed over the batch below.
        let mut weight_sums = vec![0.0; x.dims()[0] * blocks.channels];
        let mut bias_sums = weight_sums.clone();
        let x_gradient = filled(x_data.len(), |x_gradient| {
            let sums = weight_sums.par_chunks_mut(blocks.per_group);
            let sums = sums.zip(bias_sums.par_chunks_mut(blocks.per_group));
            let inputs = x_data.par_chunks(blocks.size()).zip(g.par_chunks(blocks.size()));
            let tasks = x_gradient.par_chunks_mut(blocks.size()).zip(inputs).zip(sums).enumerate();
            tasks.with_min_len(blocks.tasks_of).for_each(
                |(index, ((out, (x, g)), (weight_sums, bias_sums)))| {
                    let (weight, bias) = (blocks.of(index, weights), blocks.of(index, biases));
                    scratch(x.len(), |inner| {
                        widest(
                            #[inline(always)]
                            || self.backward_block(x, weight, bias, g, inner, out, weight_sums, bias_sums),
                        )
                    });
                },
            );
        });
        Ok((
            for_tracked(x, || x_gradient)?,
            for_tracked(weight, || sum_of_rows(&weight_sums, blocks.channels))?,
            for_tracked(bias, || sum_of_rows(&bias_sums, blocks.channels))?,
        ))
    }
}

impl GroupNorm {
    #[inline(always)]
    fn forward_block(&self, x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let (mean, scale) = mean_and_scale(x, self.eps);
        let plane = x.len() / weight.len();
        let lines = out.chunks_mut(plane).zip(x.chunks(plane)).zip(weight.iter().zip(bias));
        for ((out, x), (weight, bias)) in lines {
            let slope = weight * scale;
            if self.silu {
                out.iter_mut().zip(x).for_each(|(out, x)| {
                    let y = (x - mean) * slope + bias;
                    *out = y * sigmoid(y);
                });
            } else {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - mean) * slope + bias);
            }
        }
    }

    /// With n = (x - mean) scale, y = w n + b and g' = dL/dy: dL/dw = sum g' n, dL/db = sum g', and
    /// dL/dx = scale (w g' - mean(w g') - n mean(w g' n)). `inner` takes g' from `g`, the gradient
    /// behind the SiLU.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "three inputs, their gradients, and the room between")]
    fn backward_block(
        &self,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        g: &[f32],
        inner: &mut [f32],
        out: &mut [f32],
        weight_sums: &mut [f32],
        bias_sums: &mut [f32],
    ) {
        let (mean, scale) = mean_and_scale(x, self.eps);
        let (plane, count) = (x.len() / weight.len(), x.len() as f32);
        // `out` holds n until the last loop.
        out.iter_mut().zip(x).for_each(|(n, x)| *n = (x - mean) * scale);
        let (mut mean_g, mut mean_gn) = (0.0, 0.0);
        for channel in 0..weight.len() {
            let line = channel * plane..(channel + 1) * plane;
            let (weight, bias) = (weight[channel], bias[channel]);
            let (inner, g, n) = (&mut inner[line.clone()], &g[line.clone()], &out[line]);
            if self.silu {
                inner.iter_mut().zip(g.iter().zip(n)).for_each(|(inner, (g, n))| {
                    let y = weight * n + bias;
                    let s = sigmoid(y);
                    *inner = g * s * (1.0 + y * (1.0 - s));
                });
            } else {
                inner.copy_from_slice(g);
            }
            bias_sums[channel] = sum(inner);
            weight_sums[channel] = dot(inner, n);
            mean_g += weight * bias_sums[channel] / count;
            mean_gn += weight * weight_sums[channel] / count;
        }
        for ((out, inner), weight) in out.chunks_mut(plane).zip(inner.chunks(plane)).zip(weight) {
            let lines = out.iter_mut().zip(inner);
            lines.for_each(|(out, g)| *out = scale * (weight * g - mean_g - *out * mean_gn));
        }
    }
}
