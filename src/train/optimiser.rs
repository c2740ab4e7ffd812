//! The trained weights with AdamW's moments and the moving average.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nn::average;
use crate::nn::blockwise::{Blockwise, Sign};
use crate::nn::gradients::{Gradients, clip_scale};
use crate::nn::optim::AdamW;

/// How AdamW's two moments are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Moments {
    /// In f32: 8 bytes per weight.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// In 8 bits, with a scale per 256 values: 2 bytes per weight. Tensors of fewer than 4096 values keep f32, as in
    /// bitsandbytes.
    #[serde(rename = "8-bit")]
    EightBit,
}

/// The number of values from which a tensor's moments can have 8 bits.
const LEAST_EIGHT_BIT: usize = 4096;

impl Moments {
    /// Bytes of both moments of tensors with so many values each.
    pub fn bytes(self, tensors: impl IntoIterator<Item = u64>) -> u64 {
        let of =
            |count: u64| if self.eight_bits(count as usize) { 2 * count + count / 32 } else { 8 * count };
        tensors.into_iter().map(of).sum()
    }

    fn eight_bits(self, count: usize) -> bool {
        self == Self::EightBit && count >= LEAST_EIGHT_BIT
    }
}

/// Where the moving average is kept, if there is one.
#[derive(Clone, Debug)]
pub enum Average {
    /// There is none.
    None,
    /// On this device.
    On(Device),
}

/// What one update does.
pub struct Update {
    /// The optimiser's step.
    pub adamw: AdamW,
    /// Counted from 0.
    pub step: u64,
    /// The largest L2 norm of all gradients together.
    pub clip: f64,
    /// The largest decay of the moving average.
    pub ema_decay: f64,
}

/// All trained tensors in the order of their names.
pub struct Optimiser {
    slots: Vec<Slot>,
}

struct Slot {
    name: String,
    parameter: Var,
    moments: SlotMoments,
    average: Option<Var>,
}

enum SlotMoments {
    F32 { first: Var, second: Var },
    EightBit { first: Blockwise, second: Blockwise },
}

impl SlotMoments {
    fn zeros(parameter: &Var, moments: Moments) -> Result<Self> {
        let (count, device) = (parameter.elem_count(), parameter.device());
        let zeros = || Var::zeros(parameter.shape(), DType::F32, device);
        Ok(match moments.eight_bits(count) {
            true => Self::EightBit {
                first: Blockwise::zeros(count, Sign::Signed, device)?,
                second: Blockwise::zeros(count, Sign::Unsigned, device)?,
            },
            false => Self::F32 { first: zeros()?, second: zeros()? },
        })
    }

    /// Its tensors, each with the first word of its name in a checkpoint.
    fn variables(&self) -> Vec<(&'static str, &Var)> {
        match self {
            Self::F32 { first, second } => vec![("first_moment", first), ("second_moment", second)],
            Self::EightBit { first, second } => vec![
                ("first_moment_codes", &first.codes),
                ("first_moment_scales", &first.scales),
                ("second_moment_codes", &second.codes),
                ("second_moment_scales", &second.scales),
            ],
        }
    }
}

impl Optimiser {
    /// Starts with moments of zero.
    pub fn new<'a>(
        parameters: impl Iterator<Item = (&'a str, &'a Var)>,
        moments: Moments,
        average: &Average,
    ) -> Result<Self> {
        let slots = parameters.map(|(name, parameter)| {
            if parameter.dtype() != DType::F32 {
                bail!("`{name}` is {:?}; the optimiser needs its weights in f32", parameter.dtype())
            }
            let average = match average {
                Average::None => None,
                Average::On(device) => Some(Var::zeros(parameter.shape(), DType::F32, device)?),
            };
            Ok(Slot {
                name: name.to_owned(),
                parameter: parameter.clone(),
                moments: SlotMoments::zeros(parameter, moments)?,
                average,
            })
        });
        Ok(Self { slots: slots.collect::<Result<_>>()? })
    }

    /// One update with gradients of this `norm`, in the order of the tensors.
    pub fn update(&self, gradients: &Gradients, norm: f64, update: &Update) -> Result<()> {
        let Update { adamw, step, clip, ema_decay } = update;
        let scale = clip_scale(norm, *clip);
        let decay = average::decay_at(*step, *ema_decay);
        for (slot, gradient) in self.slots.iter().zip(gradients.iter()) {
            match (gradient, &slot.moments) {
                (None, _) => {}
                (Some(gradient), SlotMoments::F32 { first, second }) => {
                    adamw.step(&slot.parameter, gradient, (first, second), step + 1, scale)?;
                }
                (Some(gradient), SlotMoments::EightBit { first, second }) => {
                    adamw.step_blockwise(&slot.parameter, gradient, (first, second), step + 1, scale)?;
                }
            }
            if let Some(average) = &slot.average {
                let parameter = slot.parameter.as_detached_tensor().to_device(average.device())?;
                average::update(average, &parameter, decay)?;
            }
        }
        Ok(())
    }

    /// Everything that a checkpoint must hold, by name.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut all = Vec::new();
        for Slot { name, parameter, moments, average } in &self.slots {
            let average = average.iter().map(|average| ("average", average));
            let tensors = [("parameter", parameter)].into_iter().chain(moments.variables()).chain(average);
            all.extend(tensors.map(|(kind, tensor)| (format!("{kind}.{name}"), tensor.clone())));
        }
        all
    }

    /// The result of training: the moving average if there is one, else the weights.
    pub fn result(&self) -> BTreeMap<String, Tensor> {
        let chosen = |slot: &Slot| slot.average.as_ref().unwrap_or(&slot.parameter).as_detached_tensor();
        self.slots.iter().map(|slot| (slot.name.clone(), chosen(slot))).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn optimiser(a: &Var, b: &Var) -> Result<Optimiser> {
        Optimiser::new([("a", a), ("b", b)].into_iter(), Moments::F32, &Average::On(Device::Cpu))
    }

    /// Numbers from `tests/golden_distill/make.py`: torch 2.11.0, diffusers 0.42.1.
    #[test]
    fn three_clipped_steps_are_those_of_torch() -> Result<()> {
        let a = Var::new(&[0.5f32, -1.0, 2.0], &Device::Cpu)?;
        let b = Var::new(&[[0.25f32, 3.0]], &Device::Cpu)?;
        let adamw = AdamW { learning_rate: 0.1, beta1: 0.8, beta2: 0.9, eps: 1e-6, weight_decay: 0.05 };
        let optimiser = optimiser(&a, &b)?;
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
            gradients.add(&mut loss?.backward()?, [&a, &b].into_iter())?;
            let norm = gradients.norm()?;
            assert!((norm - expected).abs() < 1e-5, "{norm} is not {expected}");
            optimiser.update(
                &gradients,
                norm,
                &Update { adamw, step: step as u64, clip: 1.0, ema_decay: 0.25 },
            )?;
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
        let average = optimiser.result();
        close(&average["a"], &[0.283_105_13, -0.887_449_1, 1.857_179_3])?;
        close(&average["b"], &[0.033_721_62, 2.723_93])
    }

    #[test]
    fn a_parameter_without_gradient_stays() -> Result<()> {
        let a = Var::new(&[0.5f32], &Device::Cpu)?;
        let unused = Var::new(&[7f32], &Device::Cpu)?;
        let optimiser = optimiser(&a, &unused)?;
        let mut gradients = Gradients::default();
        gradients.add(&mut a.sqr()?.sum_all()?.backward()?, [&a, &unused].into_iter())?;
        let update = Update { adamw: AdamW::default(), step: 0, clip: 1.0, ema_decay: 0.9999 };
        optimiser.update(&gradients, gradients.norm()?, &update)?;
        assert_eq!(unused.to_vec1::<f32>()?, [7.0]);
        assert_eq!(optimiser.result()["b"].to_vec1::<f32>()?, [7.0]);
        assert_ne!(a.to_vec1::<f32>()?, [0.5]);
        Ok(())
    }

    #[test]
    fn a_checkpoint_holds_the_moments_in_their_type() -> Result<()> {
        let (small, large) =
            (Var::zeros(4095, DType::F32, &Device::Cpu)?, Var::ones(4096, DType::F32, &Device::Cpu)?);
        let parameters = [("large", &large), ("small", &small)].into_iter();
        let optimiser = Optimiser::new(parameters, Moments::EightBit, &Average::None)?;
        let mut gradients = Gradients::default();
        gradients.add(&mut large.sqr()?.sum_all()?.backward()?, [&large, &small].into_iter())?;
        let update = Update { adamw: AdamW::default(), step: 0, clip: 1e9, ema_decay: 0.0 };
        optimiser.update(&gradients, gradients.norm()?, &update)?;
        let variables = optimiser.variables();
        let bytes: usize =
            variables.iter().map(|(_, tensor)| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum();
        let of_weights = 4 * (4095 + 4096);
        assert_eq!((bytes - of_weights) as u64, Moments::EightBit.bytes([4095, 4096]));
        let codes =
            variables.iter().find(|(name, _)| name == "first_moment_codes.large").expect("it has codes");
        assert_eq!(codes.1.to_vec1::<u8>()?, [255; 4096]);
        assert!(variables.iter().any(|(name, _)| name == "first_moment.small"));
        Ok(())
    }
}
