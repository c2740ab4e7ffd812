//! mean((a - b)^2) in one pass over both tensors, with its gradient in one more.
//!
//! Composed of candle's operations, it would allocate several tensors of the size of a feature map per map and step,
//! each with a new memory mapping; this version allocates one, the gradient.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::operation::{self, Operation, Output, gradient_of};
use super::route::{self, Layer, Route};
use super::{cpu, cuda};

/// Number of elements summed per task. It is fixed, so that the sum does not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The mean over all elements, an f32 scalar. Differentiable with respect to both operands.
pub fn mean_square_difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("mean square difference: {:?} and {:?} differ in shape", a.dims(), b.dims())
    }
    if route::of(Layer::Difference, &[a, b], &[]) == Route::Cuda {
        return operation::apply(cuda::Difference, [a, b]);
    }
    let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
    if a.device().is_cpu() {
        operation::apply(MeanSquareDifference, [&a, &b])
    } else {
        (a - b)?.sqr()?.mean_all()
    }
}

struct MeanSquareDifference;

impl Operation<2> for MeanSquareDifference {
    fn forward(&self, [a, b]: &[Tensor; 2]) -> Result<Output> {
        let (a, b) = (cpu::elements(a)?, cpu::elements(b)?);
        let sums: Vec<f64> = a
            .par_chunks(CHUNK)
            .zip(b.par_chunks(CHUNK))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum())
            .collect();
        let mean = sums.iter().sum::<f64>() / a.len() as f64;
        Ok(Output::numbers(vec![mean as f32], ()))
    }

    fn backward(
        &self,
        [a, b]: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        [of_a, of_b]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let factor = 2.0 * gradient.to_scalar::<f32>()? / a.elem_count() as f32;
        let (x, y) = (cpu::elements(a)?, cpu::elements(b)?);
        let scaled = |factor: f32| {
            let pairs = x.par_iter().zip(&y[..]).with_min_len(CHUNK);
            pairs.map(|(a, b)| factor * (a - b)).collect()
        };
        Ok([gradient_of(a, of_a, || scaled(factor))?, gradient_of(b, of_b, || scaled(-factor))?])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::differentiate;

    #[test]
    fn value_and_gradients_agree_with_the_composed_form() -> Result<()> {
        // Longer than one chunk, and not a multiple of it.
        let numbers = |shift: f32| (0..40_003).map(move |i| ((i as f32) * 0.37 + shift).sin());
        let a = Var::from_tensor(&Tensor::from_iter(numbers(0.0), &Device::Cpu)?)?;
        let b = Var::from_tensor(&Tensor::from_iter(numbers(1.0), &Device::Cpu)?)?;
        let composed = ((a.as_tensor() - b.as_tensor())?.sqr()?.mean_all()? * 3.0)?;
        let (loss, fused) = differentiate(|| mean_square_difference(&a, &b)? * 3.0)?;
        assert!((composed.to_scalar::<f32>()? - loss.to_scalar::<f32>()?).abs() < 1e-5);
        let composed = composed.backward()?;
        for var in [&a, &b] {
            let (composed, fused) =
                (composed.get(var).expect("it was used"), fused.get(var).expect("it was used"));
            let far = (composed - fused)?.abs()?.max_all()?.to_scalar::<f32>()?;
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
