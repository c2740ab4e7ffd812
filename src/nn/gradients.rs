//! The gradients of one step: collected by parameter, summed over the parts of a batch, and measured for clipping. On a GPU, the
//! norm stays there for the update; only who wants to know it sends it to the host.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, Var};
use rayon::prelude::*;

use super::{Found, Later, cuda};

/// The L2 norm of gradients, and the factor that limits it.
pub enum Clip {
    /// On the host.
    Known {
        /// The norm.
        norm: f64,
        /// The factor.
        scale: f64,
    },
    /// Both as a tensor `[2]` of the GPU that has the gradients.
    OnCard(Tensor),
}

impl Clip {
    /// That of gradients with this norm.
    pub fn known(norm: f64, largest: f64) -> Self {
        Self::Known { norm, scale: clip_scale(norm, largest) }
    }

    /// The norm, to be read as the only number or the first of two.
    pub fn norm(&self) -> Result<Later> {
        match self {
            Self::Known { norm, .. } => Later::send(&Tensor::new(&[*norm as f32], &Device::Cpu)?),
            Self::OnCard(both) => Later::send(both),
        }
    }

    /// The factor. Waits for a GPU.
    pub fn scale(&self) -> Result<f64> {
        match self {
            Self::Known { scale, .. } => Ok(*scale),
            Self::OnCard(both) => Ok(Later::send(both)?.read()?[1].into()),
        }
    }

    /// The two numbers, if they are on a GPU.
    pub(super) fn on_card(&self) -> Option<&Tensor> {
        match self {
            Self::Known { .. } => None,
            Self::OnCard(both) => Some(both),
        }
    }
}

/// One gradient per parameter, in the parameters' order; `None` if the loss does not depend on the parameter.
#[derive(Default)]
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// Adds the gradients of `parameters` that were found; `parameters` must be the same at each call.
    pub fn add<'a>(&mut self, found: &mut Found, parameters: impl Iterator<Item = &'a Var>) -> Result<()> {
        let first = self.0.is_empty();
        for (index, parameter) in parameters.enumerate() {
            let new = found.remove(parameter).map(|gradient| gradient.contiguous()).transpose()?;
            if first {
                self.0.push(new);
            } else if let Some(new) = new {
                let sum = match &self.0[index] {
                    Some(sum) => (sum + new)?,
                    None => new,
                };
                self.0[index] = Some(sum);
            }
        }
        Ok(())
    }

    /// Replaces each gradient by what `change` makes of it, given its index.
    pub fn replace<E>(
        &mut self,
        mut change: impl FnMut(usize, Tensor) -> std::result::Result<Option<Tensor>, E>,
    ) -> std::result::Result<(), E> {
        for (index, place) in self.0.iter_mut().enumerate() {
            if let Some(gradient) = place.take() {
                *place = change(index, gradient)?;
            }
        }
        Ok(())
    }

    /// The L2 norm of all gradients together, and the factor that limits it to `largest`. A GPU is not waited for.
    pub fn clip(&self, largest: f64) -> Result<Clip> {
        let gradients: Vec<Tensor> = self.0.iter().flatten().map(Tensor::detach).collect();
        let on_card = |tensor: &Tensor| tensor.dtype() == DType::F32 && cuda::has_kernels(tensor.device());
        match !gradients.is_empty() && gradients.iter().all(on_card) {
            true => cuda::norm_and_clip(&gradients, largest).map(Clip::OnCard),
            false => Ok(Clip::known(norm(&gradients)?, largest)),
        }
    }

    /// The L2 norm of all gradients together. Waits for a GPU.
    pub fn norm(&self) -> Result<f64> {
        match self.clip(f64::from(f32::MAX))? {
            Clip::Known { norm, .. } => Ok(norm),
            on_card @ Clip::OnCard(_) => Ok(on_card.norm()?.read()?[0].into()),
        }
    }

    /// The gradients in the parameters' order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&Tensor>> {
        self.0.iter().map(Option::as_ref)
    }
}

/// The L2 norm of all gradients together, computed by the CPU or by candle's operations.
fn norm(squares: &[Tensor]) -> Result<f64> {
    let on_host = |tensor: &Tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32;
    let sums = if squares.iter().all(on_host) {
        squares.par_iter().map(sum_of_squares).collect::<Result<Vec<f64>>>()?
    } else {
        let square = |gradient: &Tensor| gradient.to_dtype(DType::F32)?.sqr()?.sum_all();
        let sums: Vec<Tensor> = squares.iter().map(square).collect::<Result<_>>()?;
        // One transfer for all of them, because each transfer waits for the device.
        Tensor::stack(&sums, 0)?.to_dtype(DType::F64)?.to_vec1()?
    };
    Ok(sums.iter().sum::<f64>().sqrt())
}

/// The factor that limits the norm of the gradients to `largest`, as in torch's `clip_grad_norm_`.
pub fn clip_scale(norm: f64, largest: f64) -> f64 {
    (largest / (norm + 1e-6)).min(1.0)
}

/// Sum of squares of a contiguous f32 tensor on the CPU, in f64 and always in the same order.
fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        candle_core::bail!("sum of squares: the tensor must be contiguous f32 on the CPU");
    };
    // Eight independent sums: with only one, each addition would wait for the previous one.
    let mut sums = [0f64; 8];
    let chunks = numbers[start..end].chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x).powi(2)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    Ok(sums.iter().sum::<f64>() + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::differentiate;

    #[test]
    fn norm_and_clip_on_known_numbers() -> Result<()> {
        let a = Var::new(&[3f32; 9], &Device::Cpu)?;
        let b = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
        let unused = Var::new(&[1f32], &Device::Cpu)?;
        // d/da sum(a^2) = 2a = 6; d/db of the sum of its transpose's squares = 2b.
        let loss = || a.sqr()?.sum_all()? + b.t()?.sqr()?.sum_all()?;
        let mut gradients = Gradients::default();
        gradients.add(&mut differentiate(loss)?.1, [&a, &b, &unused].into_iter())?;
        let norm = gradients.norm()?;
        assert!((norm - (9f64 * 36.0 + 4.0 * 30.0).sqrt()).abs() < 1e-6, "{norm}");
        assert!(gradients.iter().last().is_some_and(|gradient| gradient.is_none()));

        gradients.add(&mut differentiate(loss)?.1, [&a, &b, &unused].into_iter())?;
        assert!((gradients.norm()? - 2.0 * norm).abs() < 1e-6);

        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
        Ok(())
    }
}
