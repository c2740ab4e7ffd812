//! Vectorised pointwise activations and their derivatives.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::math::{normal, sigmoid};
use super::simd::widest;
use super::{elements, filled, for_tracked, operand};

/// A function of one element.
#[derive(Clone, Copy)]
pub(in crate::nn) enum Activation {
    /// `x sigmoid(slope x)`: SiLU for slope 1, CLIP's quick GELU for 1.702.
    Swish { slope: f32 },
    /// `x Phi(x)`
    Gelu,
}

/// Elements per task.
const TASK_ELEMENTS: usize = 1 << 14;

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Swish { .. } => "swish",
            Self::Gelu => "gelu",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = operand(self.name(), x, layout)?;
        let out = filled(x.len(), |out| {
            let tasks = out.par_chunks_mut(TASK_ELEMENTS).zip(x.par_chunks(TASK_ELEMENTS));
            tasks.for_each(|(out, x)| {
                let pairs = out.iter_mut().zip(x);
                widest(
                    #[inline(always)]
                    || match *self {
                        Self::Swish { slope } => pairs.for_each(|(out, &x)| *out = x * sigmoid(slope * x)),
                        Self::Gelu => pairs.for_each(|(out, &x)| *out = x * normal(x).0),
                    },
                );
            });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (x_data, g) = (elements(x)?, elements(&gradient)?);
        let write = |out: &mut [f32]| {
            let inputs = x_data.par_chunks(TASK_ELEMENTS).zip(g.par_chunks(TASK_ELEMENTS));
            out.par_chunks_mut(TASK_ELEMENTS).zip(inputs).for_each(|(out, (x, g))| {
                let triples = out.iter_mut().zip(x.iter().zip(g));
                widest(
                    #[inline(always)]
                    || match *self {
                        Self::Swish { slope } => triples.for_each(|(out, (&x, g))| {
                            let s = sigmoid(slope * x);
                            *out = g * s * (1.0 + slope * x * (1.0 - s));
                        }),
                        Self::Gelu => triples.for_each(|(out, (&x, g))| {
                            let (cdf, pdf) = normal(x);
                            *out = g * (cdf + x * pdf);
                        }),
                    },
                );
            });
        };
        for_tracked(x, || filled(x_data.len(), write))
    }
}

/// [.., 2n] -> [.., n]: the first half of each row times the GELU of the second.
pub(in crate::nn) struct Geglu;

impl Geglu {
    /// Rows per task.
    fn rows(n: usize) -> usize {
        (TASK_ELEMENTS / n).max(1)
    }
}

impl CustomOp1 for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = operand(self.name(), x, layout)?;
        let mut dims = layout.dims().to_vec();
        let last = dims.last_mut().expect("the layer checked the rank");
        *last /= 2;
        let n = *last;
        let rows = Self::rows(n);
        let out = filled(x.len() / 2, |out| {
            out.par_chunks_mut(rows * n).zip(x.par_chunks(rows * 2 * n)).for_each(|(out, x)| {
                widest(
                    #[inline(always)]
                    || {
                        for (out, x) in out.chunks_exact_mut(n).zip(x.chunks_exact(2 * n)) {
                            let (value, gate) = x.split_at(n);
                            let pairs = value.iter().zip(gate);
                            out.iter_mut().zip(pairs).for_each(|(out, (value, &gate))| {
                                *out = value * gate * normal(gate).0;
                            });
                        }
                    },
                );
            });
        });
        Ok((CpuStorage::F32(out), dims.into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (x_data, g) = (elements(x)?, elements(&gradient)?);
        let n = *gradient.dims().last().expect("the layer checked the rank");
        let rows = Self::rows(n);
        let write = |out: &mut [f32]| {
            let inputs = x_data.par_chunks(rows * 2 * n).zip(g.par_chunks(rows * n));
            out.par_chunks_mut(rows * 2 * n).zip(inputs).for_each(|(out, (x, g))| {
                let rows = out.chunks_exact_mut(2 * n).zip(x.chunks_exact(2 * n).zip(g.chunks_exact(n)));
                widest(
                    #[inline(always)]
                    || {
                        for (out, (x, g)) in rows {
                            let ((to_value, to_gate), (value, gate)) = (out.split_at_mut(n), x.split_at(n));
                            for i in 0..n {
                                let (cdf, pdf) = normal(gate[i]);
                                to_value[i] = g[i] * gate[i] * cdf;
                                to_gate[i] = g[i] * value[i] * (cdf + gate[i] * pdf);
                            }
                        }
                    },
                );
            });
        };
        for_tracked(x, || filled(x_data.len(), write))
    }
}
