//! mean((a - b)^2) in one pass over both tensors, with its gradient in one more.
//!
//! Composed of candle's operations, it would allocate several tensors of the size of a feature map per map and step,
//! each with a new memory mapping; this version allocates one, the gradient.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::route::{self, Layer, Route};
use super::{cuda, operation};

/// Number of elements summed per task. It is fixed, so that the sum does not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The mean over all elements, an f32 scalar. Differentiable with respect to both operands.
pub fn mean_square_difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("mean square difference: {:?} and {:?} differ in shape", a.dims(), b.dims())
    }
    if route::of(Layer::Difference, &[a, b], &[]) == Route::Cuda {
        return operation::apply2(cuda::Difference, [a, b]);
    }
    let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
    if a.device().is_cpu() {
        a.contiguous()?.apply_op2(&b.contiguous()?, MeanSquareDifference)
    } else {
        (a - b)?.sqr()?.mean_all()
    }
}

struct MeanSquareDifference;

impl CustomOp2 for MeanSquareDifference {
    fn name(&self) -> &'static str {
        "mean-square-difference"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        to_a: &Layout,
        b: &CpuStorage,
        to_b: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (slice(a, to_a)?, slice(b, to_b)?);
        let sums: Vec<f64> = a
            .par_chunks(CHUNK)
            .zip(b.par_chunks(CHUNK))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum())
            .collect();
        let mean = sums.iter().sum::<f64>() / a.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = 2.0 * grad.to_scalar::<f32>()? / a.elem_count() as f32;
        // A teacher's tensor is not tracked, so its gradient is not needed.
        let gradient = |tensor: &Tensor, factor: f32| {
            let wanted = tensor.track_op();
            wanted.then(|| a.detach().apply_op2_no_bwd(&b.detach(), &ScaledDifference(factor))).transpose()
        };
        Ok((gradient(a, factor)?, gradient(b, -factor)?))
    }
}

/// factor (a - b)
struct ScaledDifference(f32);

impl CustomOp2 for ScaledDifference {
    fn name(&self) -> &'static str {
        "scaled-difference"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        to_a: &Layout,
        b: &CpuStorage,
        to_b: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (slice(a, to_a)?, slice(b, to_b)?);
        let difference = a.par_iter().zip(b).with_min_len(CHUNK).map(|(a, b)| self.0 * (a - b)).collect();
        Ok((CpuStorage::F32(difference), to_a.shape().clone()))
    }
}

/// The elements of a contiguous f32 tensor.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&numbers[start..end]),
        _ => bail!("mean square difference: both tensors must be contiguous f32"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn value_and_gradients_agree_with_the_composed_form() -> Result<()> {
        // Longer than one chunk, and not a multiple of it.
        let numbers = |shift: f32| (0..40_003).map(move |i| ((i as f32) * 0.37 + shift).sin());
        let a = Var::from_tensor(&Tensor::from_iter(numbers(0.0), &Device::Cpu)?)?;
        let b = Var::from_tensor(&Tensor::from_iter(numbers(1.0), &Device::Cpu)?)?;
        let composed = (a.as_tensor() - b.as_tensor())?.sqr()?.mean_all()?;
        let fused = mean_square_difference(&a, &b)?;
        assert!((composed.to_scalar::<f32>()? - fused.to_scalar::<f32>()?).abs() < 1e-5);
        let (composed, fused) = ((composed * 3.0)?.backward()?, (fused * 3.0)?.backward()?);
        for var in [&a, &b] {
            let gradient =
                |store: &candle_core::backprop::GradStore| store.get(var).expect("it was used").clone();
            let far = (gradient(&composed) - gradient(&fused))?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(far < 1e-10, "{far} where gradients are up to {}", 6.0 / 40_003.0);
        }
        Ok(())
    }

    #[test]
    fn views_and_other_shapes_are_not_mixed_up() -> Result<()> {
        let a = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
        assert_eq!(mean_square_difference(&a.t()?, &a)?.to_scalar::<f32>()?, 0.5);
        assert_eq!(
            mean_square_difference(&a.narrow(0, 1, 1)?, &a.narrow(0, 0, 1)?)?.to_scalar::<f32>()?,
            4.0
        );
        assert!(mean_square_difference(&a, &a.narrow(0, 0, 1)?).is_err());
        Ok(())
    }
}
