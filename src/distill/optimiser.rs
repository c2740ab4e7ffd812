//! The student's weights with everything that moves along with them: AdamW's moments and the moving average.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor, Var, bail};

use super::average;
use super::gradients::{Gradients, clip_scale};
use super::parameters::DistillParameters;
use crate::nn::optim::AdamW;

/// All trainable tensors in the order of their names.
pub(super) struct Optimiser {
    slots: Vec<Slot>,
}

struct Slot {
    name: String,
    parameter: Var,
    first_moment: Var,
    second_moment: Var,
    average: Option<Var>,
}

impl Optimiser {
    /// Starts with moments of zero; `averaged` keeps a moving average too.
    pub(super) fn new(parameters: &BTreeMap<String, Var>, averaged: bool) -> Result<Self> {
        let slots = parameters.iter().map(|(name, parameter)| {
            if parameter.dtype() != DType::F32 {
                bail!("`{name}` is {:?}; the optimiser needs its weights in f32", parameter.dtype())
            }
            let zeros = || Var::zeros(parameter.shape(), DType::F32, parameter.device());
            Ok(Slot {
                name: name.clone(),
                parameter: parameter.clone(),
                first_moment: zeros()?,
                second_moment: zeros()?,
                average: averaged.then(zeros).transpose()?,
            })
        });
        Ok(Self { slots: slots.collect::<Result<_>>()? })
    }

    /// The trainable tensors.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &Var> {
        self.slots.iter().map(|slot| &slot.parameter)
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
            beta1: parameters.betas[0],
            beta2: parameters.betas[1],
            eps: parameters.epsilon,
            weight_decay: parameters.weight_decay,
        };
        let scale = clip_scale(norm, parameters.gradient_clip);
        let decay = average::decay_at(step, parameters.ema_decay);
        for (slot, gradient) in self.slots.iter().zip(gradients.iter()) {
            if let Some(gradient) = gradient {
                let moments = (&slot.first_moment, &slot.second_moment);
                adamw.step(&slot.parameter, gradient, moments, step + 1, scale)?;
            }
            if let Some(average) = &slot.average {
                average::update(average, &slot.parameter, decay)?;
            }
        }
        Ok(())
    }

    /// Everything that a checkpoint must hold, by name.
    pub(super) fn variables(&self) -> Vec<(String, Var)> {
        let mut all = Vec::new();
        for Slot { name, parameter, first_moment, second_moment, average } in &self.slots {
            all.push((format!("parameter.{name}"), parameter.clone()));
            all.push((format!("first_moment.{name}"), first_moment.clone()));
            all.push((format!("second_moment.{name}"), second_moment.clone()));
            if let Some(average) = average {
                all.push((format!("average.{name}"), average.clone()));
            }
        }
        all
    }

    /// What retraining puts out: the average where there is one, else the weights.
    pub(super) fn result(&self) -> BTreeMap<String, Tensor> {
        let chosen = |slot: &Slot| slot.average.as_ref().unwrap_or(&slot.parameter).as_detached_tensor();
        self.slots.iter().map(|slot| (slot.name.clone(), chosen(slot))).collect()
    }
}
