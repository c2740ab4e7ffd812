//! Layer normalisation, one pass per row.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::reduce::{dot, mean_and_scale, sum, sum_of_rows};
use super::simd::widest;
use super::{elements, filled, for_tracked, operand, scratch};

/// Operands: x [.., size], weight [size], bias [size].
pub(in crate::nn) struct LayerNorm {
    pub(in crate::nn) eps: f32,
}

/// Rows of one task.
const ROWS: usize = 32;

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        let size = weight.len();
        let out = filled(x.len(), |out| {
            out.par_chunks_mut(ROWS * size).zip(x.par_chunks(ROWS * size)).for_each(|(out, x)| {
                widest(
                    #[inline(always)]
                    || {
                        for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
                            let (mean, scale) = mean_and_scale(x, self.eps);
                            let terms = x.iter().zip(weight.iter().zip(bias));
                            out.iter_mut().zip(terms).for_each(|(out, (x, (weight, bias)))| {
                                *out = (x - mean) * scale * weight + bias;
                            });
                        }
                    },
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
        let (x_data, weight_data, g) = (elements(x)?, elements(weight)?, elements(&gradient)?);
        let (weights, size): (&[f32], _) = (&weight_data, weight_data.len());
        // Per task, summed below.
        let mut weight_sums = vec![0.0; (x_data.len() / size).div_ceil(ROWS) * size];
        let x_gradient = filled(x_data.len(), |x_gradient| {
            let inputs = x_data.par_chunks(ROWS * size).zip(g.par_chunks(ROWS * size));
            let tasks = x_gradient.par_chunks_mut(ROWS * size).zip(inputs);
            tasks.zip(weight_sums.par_chunks_mut(size)).for_each(|((out, (x, g)), weight_sums)| {
                let rows = out.chunks_exact_mut(size).zip(x.chunks_exact(size).zip(g.chunks_exact(size)));
                scratch(size, |weighted| {
                    widest(
                        #[inline(always)]
                        || {
                            for (out, (x, g)) in rows {
                                self.backward_row(x, weights, g, weighted, out, weight_sums);
                            }
                        },
                    )
                });
            });
        });
        Ok((
            for_tracked(x, || x_gradient)?,
            for_tracked(weight, || sum_of_rows(&weight_sums, size))?,
            for_tracked(bias, || sum_of_rows(&g, size))?,
        ))
    }
}

impl LayerNorm {
    /// With n = (x - mean) scale and h = w g: dL/dx = scale (h - mean(h) - n mean(h n)), dL/dw += g n.
    #[inline(always)]
    fn backward_row(
        &self,
        x: &[f32],
        weight: &[f32],
        g: &[f32],
        weighted: &mut [f32],
        out: &mut [f32],
        weight_sums: &mut [f32],
    ) {
        let (mean, scale) = mean_and_scale(x, self.eps);
        let count = x.len() as f32;
        out.iter_mut().zip(x).for_each(|(n, x)| *n = (x - mean) * scale);
        weight_sums.iter_mut().zip(g.iter().zip(&*out)).for_each(|(sum, (g, n))| *sum += g * n);
        weighted.iter_mut().zip(weight.iter().zip(g)).for_each(|(h, (weight, g))| *h = weight * g);
        let (mean_h, mean_hn) = (sum(weighted) / count, dot(weighted, out) / count);
        out.iter_mut().zip(&*weighted).for_each(|(out, h)| *out = scale * (h - mean_h - *out * mean_hn));
    }
}
