//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), in place.

use candle_core::{Result, Tensor, Var, bail};

use super::blockwise::Blockwise;
pub use super::cuda::{Moments, Trained};
use super::gradients::Clip;
use super::{average, copies, cpu, cuda};

/// The hyperparameters of AdamW. The defaults are torch's, except for the learning rate, which is BK-SDM's (Kim et al.
/// 2024).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment, the mean of the gradients.
    pub beta1: f64,
    /// Decay of the second moment, the mean of the squared gradients.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Fraction of the parameter subtracted per unit of learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { learning_rate: 5e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl AdamW {
    /// Updates `parameter` with `gradient` (times `gradient_scale`, for clipping), and both moments. The first `step` is
    /// number 1. All four tensors must have the same shape, dtype and device.
    pub fn step(
        &self,
        parameter: &Var,
        gradient: &Tensor,
        moments: (&Var, &Var),
        step: u64,
        gradient_scale: f64,
    ) -> Result<()> {
        let (first, second) = moments;
        for (name, tensor) in [("gradient", gradient), ("first moment", first), ("second moment", second)] {
            if tensor.dims() != parameter.dims() {
                bail!(
                    "adamw: parameter {:?} and {name} {:?} differ in shape",
                    parameter.dims(),
                    tensor.dims()
                )
            }
        }
        if cpu::serves(&[parameter, gradient, first, second]) {
            return self.fused(step, gradient_scale).apply(parameter, gradient, first, second);
        }
        let before = (&first.as_detached_tensor(), &second.as_detached_tensor());
        let (m, v) = self.composed(parameter, gradient, before, step, gradient_scale)?;
        first.set(&m)?;
        second.set(&v)
    }

    /// Updates all tensors as [`Self::step`] does, and their averages with this decay; those on a GPU in one launch, which reads
    /// the factor of the gradients there if it is there.
    pub fn step_all(&self, tensors: &[Trained<'_>], step: u64, clip: &Clip, decay: f64) -> Result<()> {
        let (mut on_card, mut averages) = (Vec::new(), Vec::new());
        let needs_scale = clip.on_card().is_none() || !tensors.iter().all(Trained::is_on_card);
        let gradient_scale = if needs_scale { clip.scale()? } else { 1.0 };
        for tensor in tensors {
            let Trained { parameter, gradient, average } = *tensor;
            let together = tensor.is_on_card();
            let beside = average.filter(|average| together && tensor.is_beside(average));
            averages.extend(average.filter(|_| beside.is_none()).map(|average| (average, parameter)));
            match gradient {
                _ if together => on_card.push(Trained { average: beside, ..*tensor }),
                Some((gradient, Moments::F32([first, second]))) => {
                    self.step(parameter, gradient, (first, second), step, gradient_scale)?;
                }
                Some((gradient, Moments::EightBit([first, second]))) => {
                    self.step_blockwise(parameter, gradient, (first, second), step, gradient_scale)?;
                }
                None => {}
            }
        }
        let fused = self.fused(step, gradient_scale);
        cuda::update(&on_card, clip.on_card(), &fused, 1.0 - decay as f32)?;
        averages
            .into_iter()
            .try_for_each(|(average, parameter)| average::update_from(average, parameter, decay))
    }

    /// Updates with moments in 8 bits, for a parameter in f32.
    fn step_blockwise(
        &self,
        parameter: &Var,
        gradient: &Tensor,
        (first, second): (&Blockwise, &Blockwise),
        step: u64,
        gradient_scale: f64,
    ) -> Result<()> {
        if gradient.dims() != parameter.dims() {
            let (parameter, gradient) = (parameter.dims(), gradient.dims());
            bail!("adamw: parameter {parameter:?} and gradient {gradient:?} differ in shape")
        }
        if cpu::serves(&[parameter, gradient]) {
            let fused = self.fused(step, gradient_scale);
            return cpu::blockwise::apply(&fused, parameter, gradient, first, second);
        }
        let moments = (&first.decode(parameter)?, &second.decode(parameter)?);
        let (m, v) = self.composed(parameter, gradient, moments, step, gradient_scale)?;
        first.encode(&m)?;
        second.encode(&v)
    }

    /// `(1 - beta1^t, 1 - beta2^t)`
    fn corrections(&self, step: u64) -> (f64, f64) {
        (1.0 - self.beta1.powf(step as f64), 1.0 - self.beta2.powf(step as f64))
    }

    pub(super) fn fused(&self, step: u64, gradient_scale: f64) -> cpu::adamw::Step {
        let (correction1, correction2) = self.corrections(step);
        cpu::adamw::Step {
            gradient_scale: gradient_scale as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            rest: ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32),
            keep: (1.0 - self.learning_rate * self.weight_decay) as f32,
            rate: (self.learning_rate / correction1) as f32,
            root_correction: correction2.sqrt().recip() as f32,
            eps: self.eps as f32,
        }
    }

    /// Updates `parameter`, and returns the new moments.
    fn composed(
        &self,
        parameter: &Var,
        gradient: &Tensor,
        (first, second): (&Tensor, &Tensor),
        step: u64,
        scale: f64,
    ) -> Result<(Tensor, Tensor)> {
        let (correction1, correction2) = self.corrections(step);
        let gradient = (gradient.detach() * scale)?;
        let m = ((first * self.beta1)? + (&gradient * (1.0 - self.beta1))?)?;
        let v = ((second * self.beta2)? + (gradient.sqr()? * (1.0 - self.beta2))?)?;
        let move_by = ((&m / correction1)? / ((&v / correction2)?.sqrt()? + self.eps)?)?;
        let kept = (parameter.as_detached_tensor() * (1.0 - self.learning_rate * self.weight_decay))?;
        copies::set(parameter, &(kept - (move_by * self.learning_rate)?)?)?;
        Ok((m, v))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    const SETTINGS: AdamW =
        AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 };

    /// Three steps of torch 2.11.0's `AdamW` with these settings, gradients (0.5, -1, i, 0) (i + 1).
    const START: [f32; 4] = [1.0, -2.0, 0.5, 0.0];
    const AFTER: [f64; 4] = [0.704_981_15, -1.701_984_2, 0.345_374_17, 0.0];

    #[test]
    fn agrees_with_torch_on_both_paths() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let parameter = Var::from_tensor(&Tensor::new(&START, &Device::Cpu)?.to_dtype(dtype)?)?;
            let (first, second) =
                (Var::from_tensor(&parameter.zeros_like()?)?, Var::from_tensor(&parameter.zeros_like()?)?);
            for i in 0..3u32 {
                let gradient = Tensor::new(&[0.5f32, -1.0, i as f32, 0.0], &Device::Cpu)?.to_dtype(dtype)?;
                // Half of the factor is in the gradient, half in the scale that clipping uses.
                let gradient = (gradient * (2.0 * f64::from(i + 1)))?;
                SETTINGS.step(&parameter, &gradient, (&first, &second), u64::from(i + 1), 0.5)?;
            }
            for (found, wanted) in parameter.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().zip(AFTER) {
                assert!((found - wanted).abs() < 1e-6, "{dtype:?}: {found}, needed {wanted}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() -> Result<()> {
        let parameter = Var::zeros(3, DType::F32, &Device::Cpu)?;
        let gradient = Tensor::zeros(4, DType::F32, &Device::Cpu)?;
        let moments = (&Var::zeros(3, DType::F32, &Device::Cpu)?, &Var::zeros(3, DType::F32, &Device::Cpu)?);
        let error = SETTINGS.step(&parameter, &gradient, moments, 1, 1.0).expect_err("shapes differ");
        assert!(error.to_string().contains("gradient [4]"), "{error}");
        Ok(())
    }

    /// A convex problem, least squares with columns of very different size, from the same start: 8 bits come as far as f32.
    #[test]
    fn moments_in_8_bits_solve_a_convex_problem() -> Result<()> {
        use crate::nn::blockwise::{Blockwise, Sign};
        let (rows, columns) = (64, 300);
        let sizes =
            Tensor::from_iter((0..columns).map(|i| 10f32.powf(-3.0 * i as f32 / 299.0)), &Device::Cpu)?;
        let random = crate::backend::Random::new(3, "least squares");
        let a = random.normal("a", 0, &[rows, columns], &Device::Cpu)?.broadcast_mul(&sizes)?;
        let b = random.normal("b", 0, &[rows, 1], &Device::Cpu)?;
        let settings = AdamW { learning_rate: 0.02, weight_decay: 0.0, ..SETTINGS };
        let solve = |blockwise: bool| -> Result<f32> {
            let x = Var::zeros((columns, 1), DType::F32, &Device::Cpu)?;
            let zeros = || Var::zeros((columns, 1), DType::F32, &Device::Cpu);
            let (first, second) = (zeros()?, zeros()?);
            let moments = |sign| Blockwise::zeros(columns, sign, &Device::Cpu);
            let (first8, second8) = (moments(Sign::Signed)?, moments(Sign::Unsigned)?);
            let loss = || (a.matmul(x.as_tensor())? - &b)?.sqr()?.mean_all();
            for step in 1..=300 {
                let gradients = loss()?.backward()?;
                let gradient = gradients.get(&x).expect("it was used");
                match blockwise {
                    true => settings.step_blockwise(&x, gradient, (&first8, &second8), step, 1.0)?,
                    false => settings.step(&x, gradient, (&first, &second), step, 1.0)?,
                }
            }
            loss()?.to_scalar()
        };
        let (start, full, eight) = (b.sqr()?.mean_all()?.to_scalar::<f32>()?, solve(false)?, solve(true)?);
        assert!(full < 0.02 * start, "{full} of {start}");
        assert!(eight < 1.5 * full, "{eight} with 8 bits, {full} with 32");
        Ok(())
    }

    #[test]
    fn moments_in_8_bits_are_the_same_composed() -> Result<()> {
        use crate::nn::blockwise::{Blockwise, Sign};
        // f64 is no parameter of the kernel.
        let mut found = Vec::new();
        for dtype in [DType::F32, DType::F64] {
            let start =
                Tensor::from_iter((0..700).map(|i| (i as f32).cos()), &Device::Cpu)?.to_dtype(dtype)?;
            let parameter = Var::from_tensor(&start)?;
            let moments = |sign| Blockwise::zeros(700, sign, &Device::Cpu);
            let (first, second) = (moments(Sign::Signed)?, moments(Sign::Unsigned)?);
            for step in 1..4u64 {
                let gradient =
                    Tensor::from_iter((0..700).map(|i| (i as f32 * step as f32).sin()), &Device::Cpu)?;
                let gradient = gradient.to_dtype(dtype)?;
                SETTINGS.step_blockwise(&parameter, &gradient, (&first, &second), step, 0.5)?;
            }
            found.push(parameter.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        }
        let off = found[0].iter().zip(&found[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // A code can fall on the other side of a rounding.
        assert!(off < 5e-3, "{off}");
        Ok(())
    }
}
