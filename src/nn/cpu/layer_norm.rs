//! Layer normalisation, one row at a time.

use std::sync::OnceLock;

use candle_core::{Result, Tensor};
use pulp::{Arch, Simd};
use rayon::prelude::*;

use super::reduce::{Moments, WithNormal, sum_of_rows, sums};
use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Operands: x [.., size], weight [size], bias [size].
pub(in crate::nn) struct LayerNorm {
    eps: f32,
    /// For each row.
    moments: OnceLock<Vec<Moments>>,
}

impl LayerNorm {
    pub(in crate::nn) fn new(eps: f32) -> Self {
        Self { eps, moments: OnceLock::new() }
    }

    /// Rows per task.
    fn rows(size: usize) -> usize {
        (TASK_ELEMENTS / size).max(1)
    }
}

/// Elements per task.
const TASK_ELEMENTS: usize = 1 << 13;

impl Operation<3> for LayerNorm {
    fn forward(&self, [x, weight, bias]: &[Tensor; 3]) -> Result<Output> {
        let (shape, x) = (x.shape(), elements(x)?);
        let (weight_data, bias_data) = (elements(weight)?, elements(bias)?);
        let (weight, bias): (&[f32], &[f32]) = (&weight_data, &bias_data);
        let (size, task) = (weight.len(), Self::rows(weight.len()));
        let mut moments = vec![Moments::default(); x.len() / size];
        let out = filled(x.len(), |out| {
            let tasks = out.par_chunks_mut(task * size).zip(x.par_chunks(task * size));
            tasks.zip(moments.par_chunks_mut(task)).for_each(|((out, x), moments)| {
                forward_rows(self.eps, x, weight, bias, out, moments);
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
        let (x_data, weight_data, g) = (elements(x)?, elements(weight)?, elements(gradient)?);
        let weights: &[f32] = &weight_data;
        let (size, task) = (weights.len(), Self::rows(weights.len()));
        let moments = self.moments.get().expect("BUG: backward ran before forward");
        // Gradients of weight and bias per task, summed below.
        let mut task_sums = vec![0.0; (x_data.len() / size).div_ceil(task) * 2 * size];
        let x_gradient = filled(x_data.len(), |x_gradient| {
            let inputs = x_data.par_chunks(task * size).zip(g.par_chunks(task * size));
            let tasks = x_gradient.par_chunks_mut(task * size).zip(inputs.zip(moments.par_chunks(task)));
            tasks.zip(task_sums.par_chunks_mut(2 * size)).for_each(|((out, ((x, g), moments)), sums)| {
                let (weight_sums, bias_sums) = sums.split_at_mut(size);
                backward_rows(Rows { x, g, moments, weight: weights }, out, weight_sums, bias_sums);
            });
        });
        let mut weight_sums = sum_of_rows(&task_sums, 2 * size);
        let bias_sums = weight_sums.split_off(size);
        Ok([
            gradient_of(x, of_x, || x_gradient)?,
            gradient_of(weight, of_weight, || weight_sums)?,
            gradient_of(bias, of_bias, || bias_sums)?,
        ])
    }
}

#[pulp::with_simd(forward_rows = Arch::new())]
#[inline(always)]
fn forward_rows_with_simd<'a, S: Simd>(
    simd: S,
    eps: f32,
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
    moments: &'a mut [Moments],
) {
    let size = weight.len();
    for ((out, x), moments) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(moments) {
        *moments = Moments::of(simd, x, eps);
        let terms = x.iter().zip(weight.iter().zip(bias));
        out.iter_mut().zip(terms).for_each(|(out, (x, (weight, bias)))| {
            *out = moments.normal(*x) * weight + bias;
        });
    }
}

/// The inputs of backward for a range of rows.
struct Rows<'a> {
    x: &'a [f32],
    /// The gradient of the output.
    g: &'a [f32],
    moments: &'a [Moments],
    weight: &'a [f32],
}

/// With n = (x - mean) scale and h = w g: dL/dx = scale (h - mean(h) - n mean(h n)), dL/dw += g n, dL/db += g.
#[pulp::with_simd(backward_rows = Arch::new())]
#[inline(always)]
fn backward_rows_with_simd<'a, S: Simd>(
    simd: S,
    rows: Rows<'a>,
    out: &'a mut [f32],
    weight_sums: &'a mut [f32],
    bias_sums: &'a mut [f32],
) {
    let Rows { x, g, moments, weight } = rows;
    let size = weight.len();
    let inputs = x.chunks_exact(size).zip(g.chunks_exact(size)).zip(moments);
    for (out, ((x, g), moments)) in out.chunks_exact_mut(size).zip(inputs) {
        let [of_h, of_hn] = sums(simd, [x, g, weight], WithNormal(*moments));
        let (mean_h, mean_hn) = (of_h / size as f32, of_hn / size as f32);
        out.iter_mut().zip(x.iter().zip(weight.iter().zip(g))).for_each(|(out, (x, (weight, g)))| {
            *out = moments.scale * (weight * g - mean_h - moments.normal(*x) * mean_hn);
        });
        let sums = weight_sums.iter_mut().zip(&mut *bias_sums);
        sums.zip(x.iter().zip(g)).for_each(|((weight_sum, bias_sum), (x, g))| {
            *weight_sum += g * moments.normal(*x);
            *bias_sum += g;
        });
    }
}
