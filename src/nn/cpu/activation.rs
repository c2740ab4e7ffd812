//! Vectorised pointwise activations and their derivatives.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::math::{normal, sigmoid};
use super::simd::widest;
use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

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

impl Operation<1> for Activation {
    fn forward(&self, [x]: &[Tensor; 1]) -> Result<Output> {
        let (shape, x) = (x.shape(), elements(x)?);
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
        Ok(Output::numbers(out, shape))
    }

    fn backward(
        &self,
        [x]: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        [of_x]: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let (x_data, g) = (elements(x)?, elements(gradient)?);
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
        Ok([gradient_of(x, of_x, || filled(x_data.len(), write))?])
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

impl Operation<1> for Geglu {
    fn forward(&self, [x]: &[Tensor; 1]) -> Result<Output> {
        let (mut dims, x) = (x.dims().to_vec(), elements(x)?);
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
        Ok(Output::numbers(out, dims))
    }

    fn backward(
        &self,
        [x]: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        [of_x]: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let (x_data, g) = (elements(x)?, elements(gradient)?);
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
        Ok([gradient_of(x, of_x, || filled(x_data.len(), write))?])
    }
}
