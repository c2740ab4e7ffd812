//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), in place.

use candle_core::{Result, Tensor, Var, bail};

/// The numbers of an AdamW step. The defaults are torch's, but for the learning rate, which BK-SDM
/// (Kim et al. 2024) trains with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of the parameter taken off per unit of learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { learning_rate: 5e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl AdamW {
    /// Moves `parameter` by `gradient` (times `gradient_scale`, for clipping) and updates both moments.
    /// `step` counts from 1. All four tensors have one shape, dtype and device.
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
        self.composed(parameter, gradient, moments, step, gradient_scale)
    }

    /// `(1 - beta1^t, 1 - beta2^t)`
    fn corrections(&self, step: u64) -> (f64, f64) {
        (1.0 - self.beta1.powf(step as f64), 1.0 - self.beta2.powf(step as f64))
    }

    fn composed(
        &self,
        parameter: &Var,
        gradient: &Tensor,
        (first, second): (&Var, &Var),
        step: u64,
        scale: f64,
    ) -> Result<()> {
        let (correction1, correction2) = self.corrections(step);
        let gradient = (gradient.detach() * scale)?;
        let m = ((first.as_detached_tensor() * self.beta1)? + (&gradient * (1.0 - self.beta1))?)?;
        let v = ((second.as_detached_tensor() * self.beta2)? + (gradient.sqr()? * (1.0 - self.beta2))?)?;
        let move_by = ((&m / correction1)? / ((&v / correction2)?.sqrt()? + self.eps)?)?;
        let kept = (parameter.as_detached_tensor() * (1.0 - self.learning_rate * self.weight_decay))?;
        parameter.set(&(kept - (move_by * self.learning_rate)?)?)?;
        first.set(&m)?;
        second.set(&v)
    }
}
