//! The exponential moving average (EMA) of the weights, which is the result of retraining.
//!
//! `average -= (1 - decay) (average - parameter)` with the decay of diffusers' `EMAModel`:
//! min(decay, (1 + k) / (10 + k)) after k updates, so that the weight of the first steps fades quickly.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var};
use rayon::prelude::*;

/// The decay at the step with this index, from 0; at step 0 the average is set to the parameters.
pub fn decay_at(step: u64, largest: f64) -> f64 {
    if step == 0 { 0.0 } else { largest.min((1 + step) as f64 / (10 + step) as f64) }
}

/// Moves `average` towards `parameter`, in place.
pub fn update(average: &Var, parameter: &Tensor, decay: f64) -> Result<()> {
    let parameter = parameter.detach();
    if average.device().is_cpu() && average.dtype() == DType::F32 && parameter.is_contiguous() {
        average.inplace_op2(&parameter, &Approach(1.0 - decay as f32))
    } else {
        let old = average.as_detached_tensor();
        average.set(&(&old - ((&old - &parameter)? * (1.0 - decay))?)?)
    }
}

/// Moves `average` towards `parameter`, which may be on another device.
pub fn update_from(average: &Var, parameter: &Var, decay: f64) -> Result<()> {
    update(average, &parameter.as_detached_tensor().to_device(average.device())?, decay)
}

/// A single pass over both slices, instead of three temporary tensors.
struct Approach(f32);

impl InplaceOp2 for Approach {
    fn name(&self) -> &'static str {
        "average"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        to: &Layout,
        parameter: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(average), CpuStorage::F32(parameter)) = (average, parameter) else {
            candle_core::bail!("average: both tensors must be f32");
        };
        let (Some((a, b)), Some((c, d))) = (to.contiguous_offsets(), from.contiguous_offsets()) else {
            candle_core::bail!("average: both tensors must be contiguous");
        };
        // Pieces of 64 KiB: small enough to balance the load, large enough to pay for a task.
        average[a..b].par_chunks_mut(1 << 14).zip(parameter[c..d].par_chunks(1 << 14)).for_each(
            |(average, parameter)| {
                for (average, parameter) in average.iter_mut().zip(parameter) {
                    *average -= self.0 * (*average - parameter);
                }
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_decay_grows_to_its_maximum() {
        assert_eq!(decay_at(0, 0.9999), 0.0);
        assert_eq!(decay_at(1, 0.9999), 2.0 / 11.0);
        assert_eq!(decay_at(1_000_000, 0.9999), 0.9999);
        assert_eq!(decay_at(7, 0.0), 0.0);
    }

    #[test]
    fn in_place_equals_the_formula() -> Result<()> {
        let parameter = Tensor::arange(0f32, 40_000.0, &Device::Cpu)?;
        let average = Var::from_tensor(&Tensor::ones(40_000, DType::F32, &Device::Cpu)?)?;
        update(&average, &parameter, 0.75)?;
        let expected: Vec<f32> = (0..40_000).map(|i| 1.0 - 0.25 * (1.0 - i as f32)).collect();
        assert_eq!(average.to_vec1::<f32>()?, expected);

        let wide = Var::from_tensor(&Tensor::ones(3, DType::F64, &Device::Cpu)?)?;
        update(&wide, &Tensor::new(&[0f64, 1.0, 2.0], &Device::Cpu)?, 0.75)?;
        assert_eq!(wide.to_vec1::<f64>()?, [0.75, 1.0, 1.25]);
        Ok(())
    }
}
