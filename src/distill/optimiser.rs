//! The student's weights with AdamW's moments and the moving average.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var, bail};

use super::losses;
use super::parameters::DistillParameters;
use crate::nn::gradients::{Gradients, clip_scale};
use crate::nn::optim::AdamW;
use crate::nn::{self, average};
use crate::train::{Held, Shards, TrainError};

/// All trainable tensors in the order of their names.
pub(super) struct Optimiser {
    slots: Vec<Slot>,
    averaged: bool,
}

struct Slot {
    name: String,
    parameter: Var,
    /// Where this rank owns the tensor.
    moments: Option<(Var, Var)>,
    average: Option<Var>,
}

impl Optimiser {
    /// Starts with moments of zero; `averaged` keeps a moving average too.
    #[cfg(test)]
    pub(super) fn new(parameters: &BTreeMap<String, Var>, averaged: bool) -> Result<Self> {
        Self::sharded(parameters, averaged, |_| true)
    }

    /// The same for a rank that owns some of the tensors.
    pub(super) fn sharded(
        parameters: &BTreeMap<String, Var>,
        averaged: bool,
        owns: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let slots = parameters.iter().enumerate().map(|(index, (name, parameter))| {
            if parameter.dtype() != DType::F32 {
                bail!("`{name}` is {:?}; the optimiser needs its weights in f32", parameter.dtype())
            }
            let zeros = || Var::zeros(parameter.shape(), DType::F32, parameter.device());
            Ok(Slot {
                name: name.clone(),
                parameter: parameter.clone(),
                moments: owns(index)
                    .then(|| Ok::<_, candle_core::Error>((zeros()?, zeros()?)))
                    .transpose()?,
                average: (averaged && owns(index)).then(zeros).transpose()?,
            })
        });
        Ok(Self { slots: slots.collect::<Result<_>>()?, averaged })
    }

    /// The trainable tensors.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &Var> {
        self.slots.iter().map(|slot| &slot.parameter)
    }

    /// Adds the gradients of the sum of `terms` times `weights`.
    pub(super) fn differentiate(&self, terms: &Tensor, weights: &[f32], into: &mut Gradients) -> Result<()> {
        let mut store = nn::backward(&losses::total(terms, weights, terms.device())?)?;
        into.add(&mut store, self.parameters())
    }

    /// One update with gradients of this `norm`; `step` counts from 0.
    pub(super) fn update(
        &self,
        gradients: &Gradients,
        norm: f64,
        step: u64,
        parameters: &DistillParameters,
    ) -> Result<()> {
        let adamw = AdamW {
            learning_rate: parameters.learning_rate_at(step),
            beta1: parameters.betas[0].get(),
            beta2: parameters.betas[1].get(),
            eps: parameters.epsilon.get(),
            weight_decay: parameters.weight_decay.get(),
        };
        let scale = clip_scale(norm, parameters.gradient_clip.get());
        let decay = average::decay_at(step, parameters.ema_decay.get());
        for (slot, gradient) in self.slots.iter().zip(gradients.iter()) {
            if let (Some(gradient), Some((first, second))) = (gradient, &slot.moments) {
                adamw.step(&slot.parameter, gradient, (first, second), step + 1, scale)?;
            }
            if let Some(average) = &slot.average {
                average::update(average, &slot.parameter, decay)?;
            }
        }
        Ok(())
    }

    /// Everything that a checkpoint must hold.
    pub(super) fn held(&self, shards: &Shards<'_>) -> Vec<Held> {
        let mut all = Vec::new();
        for (index, Slot { name, parameter, moments, average }) in self.slots.iter().enumerate() {
            let (first, second) =
                (moments.as_ref().map(|pair| &pair.0), moments.as_ref().map(|pair| &pair.1));
            let mut tensors =
                vec![("parameter", Some(parameter)), ("first_moment", first), ("second_moment", second)];
            tensors.extend(self.averaged.then_some(("average", average.as_ref())));
            all.extend(tensors.into_iter().map(|(kind, variable)| Held {
                name: format!("{kind}.{name}"),
                dtype: DType::F32,
                shape: parameter.dims().to_vec(),
                owner: shards.owner(index),
                variable: variable.cloned(),
            }));
        }
        all
    }

    /// The result of retraining: the moving average if there is one, else the weights. Complete on rank 0.
    pub(super) fn result(
        &self,
        shards: &Shards<'_>,
    ) -> std::result::Result<BTreeMap<String, Tensor>, TrainError> {
        let mut result = BTreeMap::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let tensor = match self.averaged {
                true => shards.fetch(index, slot.average.as_ref(), &slot.parameter)?,
                false => Some(slot.parameter.as_detached_tensor()),
            };
            result.extend(tensor.map(|tensor| (slot.name.clone(), tensor)));
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::base::Real;
    use crate::train::collective::Alone;

    /// Numbers from `tests/golden_distill/make.py`: torch 2.11.0, diffusers 0.42.1.
    #[test]
    fn three_clipped_steps_are_those_of_torch() -> Result<()> {
        let a = Var::new(&[0.5f32, -1.0, 2.0], &Device::Cpu)?;
        let b = Var::new(&[[0.25f32, 3.0]], &Device::Cpu)?;
        let named = BTreeMap::from([("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())]);
        let parameters = DistillParameters {
            learning_rate: Real::new(0.1),
            betas: [Real::new(0.8), Real::new(0.9)],
            epsilon: Real::new(1e-6),
            weight_decay: Real::new(0.05),
            ema_decay: Real::new(0.25),
            ..Default::default()
        };
        let optimiser = Optimiser::new(&named, true)?;
        let gradients = [
            ([0.1f32, -0.2, 0.3], [[0.05f32, 0.4]]),
            ([3.0, 1.0, -2.0], [[0.0, 5.0]]),
            ([-0.3, 0.0, 0.7], [[1.5, -0.25]]),
        ];
        let expected_norms = [0.550_000, 6.244_998, 1.700_735];
        for (step, ((of_a, of_b), expected)) in gradients.into_iter().zip(expected_norms).enumerate() {
            // The gradient of sum(p c) is c.
            let product = |p: &Var, c: Result<Tensor>| (p.as_tensor() * c?)?.sum_all();
            let loss = product(&a, Tensor::new(&of_a, &Device::Cpu))?
                + product(&b, Tensor::new(&of_b, &Device::Cpu))?;
            let mut gradients = Gradients::default();
            gradients.add(&mut loss?.backward()?, optimiser.parameters())?;
            let norm = gradients.norm()?;
            assert!((norm - expected).abs() < 1e-5, "{norm} is not {expected}");
            optimiser.update(&gradients, norm, step as u64, &parameters)?;
        }
        let close = |found: &Tensor, expected: &[f32]| -> Result<()> {
            for (found, expected) in found.flatten_all()?.to_vec1::<f32>()?.into_iter().zip(expected) {
                // A few roundings of f32 at numbers up to 3.
                assert!((found - expected).abs() < 2e-6, "{found} is not {expected}");
            }
            Ok(())
        };
        close(&a, &[0.269_416_5, -0.886_141_6, 1.844_904_1])?;
        close(&b, &[0.013_192_207, 2.700_589_2])?;
        let average = optimiser.result(&Shards::new(&Alone, &[3, 2])).expect("it is alone");
        close(&average["a"], &[0.283_105_13, -0.887_449_1, 1.857_179_3])?;
        close(&average["b"], &[0.033_721_62, 2.723_93])
    }

    #[test]
    fn a_parameter_without_gradient_stays() -> Result<()> {
        let a = Var::new(&[0.5f32], &Device::Cpu)?;
        let unused = Var::new(&[7f32], &Device::Cpu)?;
        let named = BTreeMap::from([("a".to_owned(), a.clone()), ("b".to_owned(), unused.clone())]);
        let optimiser = Optimiser::new(&named, true)?;
        let mut gradients = Gradients::default();
        gradients.add(&mut a.sqr()?.sum_all()?.backward()?, optimiser.parameters())?;
        optimiser.update(&gradients, gradients.norm()?, 0, &DistillParameters::default())?;
        assert_eq!(unused.to_vec1::<f32>()?, [7.0]);
        assert_eq!(
            optimiser.result(&Shards::new(&Alone, &[1, 1])).expect("it is alone")["b"].to_vec1::<f32>()?,
            [7.0]
        );
        assert_ne!(a.to_vec1::<f32>()?, [0.5]);
        Ok(())
    }
}
