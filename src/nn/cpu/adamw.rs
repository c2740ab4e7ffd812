//! Updates parameter and both moments from the gradient in one pass, in place.

use std::cell::RefCell;
use std::marker::PhantomData;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::elements;
use super::simd::widest;

/// The precomputed constants of one step.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Step {
    /// Factor of the gradient.
    pub(in crate::nn) gradient_scale: f32,
    pub(in crate::nn) beta1: f32,
    pub(in crate::nn) beta2: f32,
    /// `1 - beta1` and `1 - beta2`, computed in f64: in f32 the second would lose five digits.
    pub(in crate::nn) rest: (f32, f32),
    /// `1 - learning_rate * weight_decay`
    pub(in crate::nn) keep: f32,
    /// `learning_rate / (1 - beta1^t)`
    pub(in crate::nn) rate: f32,
    /// `1 / sqrt(1 - beta2^t)`
    pub(in crate::nn) root_correction: f32,
    pub(in crate::nn) eps: f32,
}

/// Elements per task.
const TASK_ELEMENTS: usize = 1 << 14;

impl Step {
    /// A step that changes nothing.
    pub(in crate::nn) fn nothing() -> Self {
        Self {
            gradient_scale: 0.0,
            beta1: 1.0,
            beta2: 1.0,
            rest: (0.0, 0.0),
            keep: 1.0,
            rate: 0.0,
            root_correction: 1.0,
            eps: 1.0,
        }
    }

    /// Updates `parameter` and both moments, all contiguous f32 on the CPU.
    pub(in crate::nn) fn apply(
        &self,
        parameter: &Tensor,
        g: &Tensor,
        first: &Tensor,
        second: &Tensor,
    ) -> Result<()> {
        let g = g.contiguous()?;
        let g = elements(&g)?;
        // Each closure holds the lock of its tensor, so the innermost can access all three.
        modify(parameter, |parameter| {
            modify(first, |first| {
                modify(second, |second| {
                    self.apply_slices(parameter, &g, first, second);
                    Ok(())
                })
            })
        })
    }

    fn apply_slices(&self, parameter: &mut [f32], g: &[f32], first: &mut [f32], second: &mut [f32]) {
        let moments = first.par_chunks_mut(TASK_ELEMENTS).zip(second.par_chunks_mut(TASK_ELEMENTS));
        let tasks = parameter.par_chunks_mut(TASK_ELEMENTS).zip(g.par_chunks(TASK_ELEMENTS));
        tasks.zip(moments).for_each(|((parameter, g), (first, second))| {
            widest(
                #[inline(always)]
                || self.apply_block(parameter, g, first, second),
            );
        });
    }

    /// The update of a few numbers, to be compiled for each processor by its caller.
    #[inline(always)]
    pub(super) fn apply_block(
        &self,
        parameter: &mut [f32],
        g: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let moments = first.iter_mut().zip(second);
        parameter.iter_mut().zip(g).zip(moments).for_each(|((parameter, g), (m, v))| {
            let g = g * self.gradient_scale;
            *m = self.beta1 * *m + self.rest.0 * g;
            *v = self.beta2 * *v + self.rest.1 * (g * g);
            let root = v.sqrt() * self.root_correction + self.eps;
            *parameter = *parameter * self.keep - self.rate * (*m / root);
        });
    }
}

/// Calls a closure with mutable access to the elements of a tensor.
pub(super) fn modify<T: Number>(tensor: &Tensor, work: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
    tensor.inplace_op1(&Modify(RefCell::new(Some(work)), PhantomData))
}

/// A type of element.
pub(super) trait Number: Sized {
    fn of(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Number for f32 {
    fn of(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::F32(data) = storage { Some(data) } else { None }
    }
}

impl Number for u8 {
    fn of(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        if let CpuStorage::U8(data) = storage { Some(data) } else { None }
    }
}

struct Modify<T, F>(RefCell<Option<F>>, PhantomData<T>);

impl<T: Number, F: FnOnce(&mut [T]) -> Result<()>> InplaceOp1 for Modify<T, F> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (T::of(storage), layout.contiguous_offsets(), self.0.take()) {
            (Some(data), Some((start, end)), Some(work)) => work(&mut data[start..end]),
            _ => bail!("adamw: {:?} is not contiguous or of another type", layout.shape()),
        }
    }
}
