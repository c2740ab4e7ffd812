//! The trained weights with AdamW's moments and the moving average.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Held, Shards, TrainError};
use crate::nn::average;
use crate::nn::blockwise::{BLOCK, Blockwise, Sign};
use crate::nn::gradients::{Clip, Gradients};
use crate::nn::optim::{self, AdamW, Trained};

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

    /// The tensors of the moments of one parameter, in the order of [`SlotMoments::variables`].
    fn layout(self, parameter: &Var) -> Vec<(&'static str, DType, Vec<usize>)> {
        let shape = parameter.dims().to_vec();
        let blocks = parameter.elem_count().div_ceil(BLOCK);
        match self.eight_bits(parameter.elem_count()) {
            true => vec![
                ("first_moment_codes", DType::U8, vec![blocks * BLOCK]),
                ("first_moment_scales", DType::F32, vec![blocks]),
                ("second_moment_codes", DType::U8, vec![blocks * BLOCK]),
                ("second_moment_scales", DType::F32, vec![blocks]),
            ],
            false => vec![("first_moment", DType::F32, shape.clone()), ("second_moment", DType::F32, shape)],
        }
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
    /// The largest decay of the moving average.
    pub ema_decay: f64,
}

/// All trained tensors in the order of their names.
pub struct Optimiser {
    slots: Vec<Slot>,
    moments: Moments,
    averaged: bool,
}

struct Slot {
    name: String,
    parameter: Var,
    /// Where this rank owns the tensor.
    moments: Option<SlotMoments>,
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

    fn updated(&self) -> optim::Moments<'_> {
        match self {
            Self::F32 { first, second } => optim::Moments::F32([first, second]),
            Self::EightBit { first, second } => optim::Moments::EightBit([first, second]),
        }
    }

    /// Its tensors.
    fn variables(&self) -> Vec<&Var> {
        match self {
            Self::F32 { first, second } => vec![first, second],
            Self::EightBit { first, second } => {
                vec![&first.codes, &first.scales, &second.codes, &second.scales]
            }
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
        Self::sharded(parameters, moments, average, |_| true)
    }

    /// The same for a rank that owns those of the tensors whose indices are chosen.
    pub fn sharded<'a>(
        parameters: impl Iterator<Item = (&'a str, &'a Var)>,
        moments: Moments,
        average: &Average,
        owns: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let slots = parameters.enumerate().map(|(index, (name, parameter))| {
            if parameter.dtype() != DType::F32 {
                bail!("`{name}` is {:?}; the optimiser needs its weights in f32", parameter.dtype())
            }
            let average = match average {
                Average::None => None,
                Average::On(_) if !owns(index) => None,
                Average::On(device) => Some(Var::zeros(parameter.shape(), DType::F32, device)?),
            };
            Ok(Slot {
                name: name.to_owned(),
                parameter: parameter.clone(),
                moments: owns(index).then(|| SlotMoments::zeros(parameter, moments)).transpose()?,
                average,
            })
        });
        let averaged = !matches!(average, Average::None);
        Ok(Self { slots: slots.collect::<Result<_>>()?, moments, averaged })
    }

    /// One update with gradients of this norm, in the order of the tensors. On a GPU, a norm that is not finite changes nothing.
    pub fn update(&self, gradients: &Gradients, clip: &Clip, update: &Update) -> Result<()> {
        let Update { adamw, step, ema_decay } = update;
        let decay = average::decay_at(*step, *ema_decay);
        let trained = self.slots.iter().zip(gradients.iter()).map(|(slot, gradient)| Trained {
            parameter: &slot.parameter,
            gradient: gradient.zip(slot.moments.as_ref().map(SlotMoments::updated)),
            average: slot.average.as_ref(),
        });
        adamw.step_all(&trained.collect::<Vec<_>>(), step + 1, clip, decay)
    }

    /// Everything that a checkpoint must hold.
    pub fn held(&self, shards: &Shards<'_>) -> Vec<Held> {
        let mut all = Vec::new();
        for (index, Slot { name, parameter, moments, average }) in self.slots.iter().enumerate() {
            let mut held = |kind: &str, dtype, shape: Vec<usize>, variable: Option<&Var>| {
                let name = format!("{kind}.{name}");
                all.push(Held {
                    name,
                    dtype,
                    shape,
                    owner: shards.owner(index),
                    variable: variable.cloned(),
                });
            };
            let like = parameter.dims().to_vec();
            held("parameter", DType::F32, like.clone(), Some(parameter));
            let variables = moments.as_ref().map(SlotMoments::variables);
            for (place, (kind, dtype, shape)) in self.moments.layout(parameter).into_iter().enumerate() {
                held(kind, dtype, shape, variables.as_ref().map(|variables| variables[place]));
            }
            if self.averaged {
                held("average", DType::F32, like, average.as_ref());
            }
        }
        all
    }

    /// The trained tensors.
    pub fn parameters(&self) -> impl Iterator<Item = &Var> {
        self.slots.iter().map(|slot| &slot.parameter)
    }

    /// The result of training: the moving average if there is one, else the weights. It is complete on rank 0.
    pub fn result(&self, shards: &Shards<'_>) -> std::result::Result<BTreeMap<String, Tensor>, TrainError> {
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
    use crate::nn::differentiate;
    use crate::train::collective::Alone;

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
            gradients.add(&mut differentiate(|| loss)?.1, [&a, &b].into_iter())?;
            let norm = gradients.norm()?;
            assert!((norm - expected).abs() < 1e-5, "{norm} is not {expected}");
            let update = Update { adamw, step: step as u64, ema_decay: 0.25 };
            optimiser.update(&gradients, &gradients.clip(1.0)?, &update)?;
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
        let optimiser = optimiser(&a, &unused)?;
        let mut gradients = Gradients::default();
        gradients.add(&mut differentiate(|| a.sqr()?.sum_all())?.1, [&a, &unused].into_iter())?;
        let update = Update { adamw: AdamW::default(), step: 0, ema_decay: 0.9999 };
        optimiser.update(&gradients, &gradients.clip(1.0)?, &update)?;
        assert_eq!(unused.to_vec1::<f32>()?, [7.0]);
        assert_eq!(
            optimiser.result(&Shards::new(&Alone, &[1, 1])).expect("it is alone")["b"].to_vec1::<f32>()?,
            [7.0]
        );
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
        gradients.add(&mut differentiate(|| large.sqr()?.sum_all())?.1, [&large, &small].into_iter())?;
        let update = Update { adamw: AdamW::default(), step: 0, ema_decay: 0.0 };
        optimiser.update(&gradients, &gradients.clip(1e9)?, &update)?;
        let shards = Shards::new(&Alone, &[4096, 4095]);
        let held = optimiser.held(&shards);
        let variable = |held: &Held| (held.name.clone(), held.variable.clone().expect("it is alone"));
        let variables: Vec<(String, Var)> = held.iter().map(variable).collect();
        for (held, (_, variable)) in held.iter().zip(&variables) {
            assert_eq!((held.dtype, &held.shape[..]), (variable.dtype(), variable.dims()), "{}", held.name);
        }
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
