//! The optimiser against the CPU's, bit for bit.

use candle_core::{DType, Device, Error, Result, Tensor, Var};
use half::bf16;

use super::buffer::Buffer;
use super::emulator::Emulator;
use super::memory::copies_to_host;
use crate::backend::Random;
use crate::nn::average;
use crate::nn::cuda::launch::Pointer;
use crate::nn::cuda::optimiser::{Table, TrainedTensor};
use crate::nn::gradients::{Clip, Gradients};
use crate::nn::optim::{AdamW, Moments, Trained};

/// Sizes around a multiple of four and of a block's chunk, one of several chunks, and none at all.
const SIZES: [usize; 7] = [1, 4, 7, 0, 16_384, 40_003, 16_385];
/// The tensor without a gradient.
const NO_GRADIENT: usize = 4;
/// The tensor without an average.
const NO_AVERAGE: usize = 1;
/// The tensor without a copy.
const NO_COPY: usize = 6;

/// A tensor of the optimiser, in the emulation's memory.
struct Slot {
    parameter: Buffer<f32>,
    gradient: Buffer<f32>,
    first: Buffer<f32>,
    second: Buffer<f32>,
    average: Buffer<f32>,
    copy: Buffer<bf16>,
}

fn normal(name: &str, index: usize, size: usize) -> Result<Buffer<f32>> {
    Buffer::of(&Random::new(3, "optimiser").normal(name, index as u64, &[size], &Device::Cpu)?)
}

fn slots() -> Result<Vec<Slot>> {
    let slot = |(index, &size): (usize, &usize)| {
        let mut second = normal("second", index, size)?;
        second.0.iter_mut().for_each(|x| *x *= *x);
        Ok(Slot {
            parameter: normal("parameter", index, size)?,
            gradient: normal("gradient", index, size)?,
            first: normal("first", index, size)?,
            second,
            average: normal("average", index, size)?,
            copy: Buffer(vec![bf16::NAN; size]),
        })
    };
    SIZES.iter().enumerate().map(slot).collect()
}

fn table(slots: &mut [Slot]) -> Table {
    let row = |(index, slot): (usize, &mut Slot)| {
        let unless = |skipped, pointer: Pointer| if index == skipped { 0 } else { pointer.0 };
        TrainedTensor {
            parameter: slot.parameter.pointer().0,
            gradient: unless(NO_GRADIENT, slot.gradient.pointer()),
            first_moment: slot.first.pointer().0,
            second_moment: slot.second.pointer().0,
            average: unless(NO_AVERAGE, slot.average.pointer()),
            half: unless(NO_COPY, slot.copy.pointer()),
            elements: slot.parameter.0.len() as i64,
            ..TrainedTensor::default()
        }
    };
    Table::new(slots.iter_mut().enumerate().map(row).collect())
}

const SETTINGS: AdamW =
    AdamW { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 };
const DECAY: f64 = 0.75;

/// What limits a norm of 4 to 1, up to the last places.
fn quarter() -> Clip {
    Clip::Known { norm: 4.0, scale: 0.25 }
}

/// One step on the device: the norm and the factor.
fn step(emulator: &Emulator, slots: &mut [Slot], largest: f32) -> Result<[f32; 2]> {
    let table = table(slots);
    let mut rows = Buffer(table.rows.clone());
    let (mut partial, mut norm) = (Buffer(vec![f64::NAN; table.partial()]), Buffer::nan(2));
    table.norm_and_clip(emulator, rows.pointer(), largest, [partial.pointer(), norm.pointer()])?;
    let (constants, approach) = (SETTINGS.fused(3, 1.0), 1.0 - DECAY as f32);
    table.adamw(emulator, rows.pointer(), norm.pointer(), &constants, approach)?;
    Ok([norm.0[0], norm.0[1]])
}

fn variable(buffer: &Buffer<f32>) -> Result<Var> {
    Var::from_tensor(&Tensor::from_slice(&buffer.0, buffer.0.len(), &Device::Cpu)?)
}

/// The same step with the layers of the CPU: parameter, both moments and average of each tensor.
fn on_cpu(slots: &[Slot], factor: f32) -> Result<Vec<[Vec<f32>; 4]>> {
    let one = |(index, slot): (usize, &Slot)| {
        let [p, m, v, average] = [&slot.parameter, &slot.first, &slot.second, &slot.average];
        let [p, m, v, average] = [variable(p)?, variable(m)?, variable(v)?, variable(average)?];
        if index != NO_GRADIENT {
            let gradient = variable(&slot.gradient)?;
            SETTINGS.step(&p, gradient.as_tensor(), (&m, &v), 3, f64::from(factor))?;
        }
        if index != NO_AVERAGE {
            average::update(&average, p.as_tensor(), DECAY)?;
        }
        Ok([p.to_vec1()?, m.to_vec1()?, v.to_vec1()?, average.to_vec1()?])
    };
    slots.iter().enumerate().filter(|(_, slot)| !slot.parameter.0.is_empty()).map(one).collect()
}

/// Whether the norm is limited or not, under every schedule.
#[test]
fn a_step_has_the_bits_of_the_cpu() -> Result<()> {
    let start = slots()?;
    let squares = start.iter().enumerate().filter(|(index, _)| *index != NO_GRADIENT);
    let squares = squares.flat_map(|(_, slot)| &slot.gradient.0).map(|x| f64::from(*x).powi(2));
    let exact = squares.sum::<f64>().sqrt();
    for largest in [1.0, 1e6] {
        for emulator in Emulator::schedules() {
            let mut slots = slots()?;
            let [norm, factor] = step(&emulator, &mut slots, largest)?;
            assert!((f64::from(norm) - exact).abs() < 1e-6 * exact, "{norm}, needed {exact}");
            let wanted = crate::nn::gradients::clip_scale(exact, f64::from(largest));
            assert!((f64::from(factor) - wanted).abs() < 1e-6 * wanted, "{factor}, needed {wanted}");
            let wanted = on_cpu(&start, factor)?;
            let found = slots.iter().enumerate().filter(|(_, slot)| !slot.parameter.0.is_empty());
            for ((index, slot), wanted) in found.zip(wanted) {
                let found = [&slot.parameter.0, &slot.first.0, &slot.second.0, &slot.average.0];
                assert!(found.into_iter().eq(&wanted), "tensor {index} differs from the CPU's");
                let copied = index != NO_GRADIENT && index != NO_COPY;
                let copy = |x: &f32| if copied { bf16::from_f32(*x) } else { bf16::NAN };
                let same = |(found, x): (&bf16, &f32)| found.to_bits() == copy(x).to_bits();
                assert!(slot.copy.0.iter().zip(&slot.parameter.0).all(same), "the copy of tensor {index}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() -> Result<()> {
    let (start, mut slots) = (slots()?, slots()?);
    slots[5].gradient.0[17] = f32::NAN;
    let [norm, _] = step(&Emulator::schedules()[0], &mut slots, 1.0)?;
    assert!(norm.is_nan());
    for (slot, start) in slots.iter().zip(&start) {
        assert!(slot.parameter.0 == start.parameter.0 && slot.first.0 == start.first.0);
        assert!(slot.average.0 == start.average.0 && slot.copy.0.iter().all(|x| x.is_nan()));
    }
    Ok(())
}

/// Tensors in training: parameter, both moments and average of each, and its gradient.
fn in_training() -> Result<Vec<([Var; 4], Var)>> {
    let slots = slots()?.into_iter().filter(|slot| !slot.parameter.0.is_empty());
    let held = slots.map(|Slot { parameter, gradient, first, second, average, .. }| {
        let [parameter, first, second, average] =
            [parameter, first, second, average].map(|buffer| variable(&buffer));
        Ok(([parameter?, first?, second?, average?], variable(&gradient)?))
    });
    held.collect()
}

/// Updates the tensors of a training with what limits the norm of their gradients: everything that was held, the norm, and the factor.
fn update(clip: impl Fn(&Gradients) -> Result<Clip>) -> Result<(Vec<Vec<f32>>, Clip)> {
    let tensors = in_training()?;
    // The gradient of sum(p g) is g.
    let loss = |(variables, gradient): &([Var; 4], Var)| {
        (variables[0].as_tensor() * gradient.as_detached_tensor())?.sum_all()
    };
    let sum = || tensors.iter().map(loss).reduce(|a, b| a? + b?).expect("some tensors");
    let (_, mut found) = crate::nn::differentiate(sum)?;
    let mut gradients = Gradients::default();
    gradients.add(&mut found, tensors.iter().map(|(variables, _)| &variables[0]))?;
    let clip = clip(&gradients)?;
    let each = tensors.iter().zip(gradients.iter()).enumerate();
    let trained = each.map(|(index, ((variables, _), gradient))| {
        let [parameter, first, second, average] = variables;
        Trained {
            parameter,
            gradient: gradient.filter(|_| index != 3).zip(Some(Moments::F32([first, second]))),
            average: (index != NO_AVERAGE).then_some(average),
        }
    });
    SETTINGS.step_all(&trained.collect::<Vec<_>>(), 3, &clip, DECAY)?;
    let all = tensors.iter().flat_map(|(variables, _)| variables).map(|v| v.to_vec1::<f32>());
    Ok((all.collect::<Result<_>>()?, clip))
}

/// On the CPU and as on a GPU, which needs nothing of the host: the norm goes from one kernel to the next.
#[test]
fn an_update_of_tensors_has_the_bits_of_the_cpu() -> Result<()> {
    for largest in [1.0, 1e6] {
        let exact = update(|gradients| gradients.clip(largest))?.1;
        let Clip::Known { norm: exact, .. } = exact else { panic!("it is on the host") };
        for emulator in Emulator::schedules() {
            let (found, copies) =
                copies_to_host(|| emulator.emulating(|| update(|gradients| gradients.clip(largest))));
            assert!(copies.is_empty(), "{copies:?}");
            let (found, clip) = found?;
            let (norm, scale) =
                emulator.emulating(|| Ok::<_, Error>((clip.norm()?.read()?[0], clip.scale()?)))?;
            assert!((f64::from(norm) - exact).abs() < 1e-6 * exact, "{norm}, needed {exact}");
            let (wanted, _) = update(|_| Ok(Clip::Known { norm: exact, scale }))?;
            assert!(found == wanted, "an updated tensor differs from the CPU's");
        }
    }
    Ok(())
}

/// Three steps with moments in 8 bits, beside a tensor with moments in f32: codes, scales, parameters and averages.
#[test]
fn moments_in_8_bits_have_the_bits_of_the_cpu() -> Result<()> {
    use crate::nn::blockwise::{Blockwise, Sign};
    let update = || -> Result<[Vec<Vec<f32>>; 2]> {
        let (mut numbers, mut codes) = (Vec::new(), Vec::new());
        let slots: Vec<Slot> = slots()?.into_iter().filter(|slot| !slot.parameter.0.is_empty()).collect();
        let mut variables = Vec::new();
        for slot in &slots {
            let [parameter, first, second, average] =
                [&slot.parameter, &slot.first, &slot.second, &slot.average].map(variable);
            let count = slot.parameter.0.len();
            let scaled =
                [Sign::Signed, Sign::Unsigned].map(|sign| Blockwise::zeros(count, sign, &Device::Cpu));
            let [of_first, of_second] = scaled;
            variables.push(([parameter?, first?, second?, average?], [of_first?, of_second?]));
        }
        for step in 1..4u64 {
            let gradient = |index: usize, slot: &Slot| {
                normal("later gradient", 10 * step as usize + index, slot.parameter.0.len())
                    .and_then(|gradient| variable(&gradient))
            };
            let gradients: Vec<Var> =
                slots.iter().enumerate().map(|(index, slot)| gradient(index, slot)).collect::<Result<_>>()?;
            let trained = variables.iter().zip(&gradients).enumerate().map(|(index, (held, gradient))| {
                let ([parameter, first, second, average], [of_first, of_second]) = held;
                let moments = match index {
                    2 => Moments::F32([first, second]),
                    _ => Moments::EightBit([of_first, of_second]),
                };
                Trained {
                    parameter,
                    gradient: Some((gradient.as_tensor(), moments)),
                    average: (index != NO_AVERAGE).then_some(average),
                }
            });
            SETTINGS.step_all(&trained.collect::<Vec<_>>(), step, &quarter(), DECAY)?;
        }
        for (plain, scaled) in &variables {
            let scales = scaled.iter().map(|moment| &moment.scales);
            numbers.extend(plain.iter().chain(scales).map(|v| v.to_vec1()).collect::<Result<Vec<_>>>()?);
            let as_numbers = |moment: &Blockwise| moment.codes.to_dtype(DType::F32)?.to_vec1();
            codes.extend(scaled.iter().map(as_numbers).collect::<Result<Vec<_>>>()?);
        }
        Ok([numbers, codes])
    };
    let wanted = update()?;
    for emulator in Emulator::schedules() {
        let found = emulator.emulating(update)?;
        for (kind, (found, wanted)) in ["numbers", "codes"].iter().zip(found.iter().zip(&wanted)) {
            for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                assert!(found == wanted, "{kind} {index} differ from the CPU's");
            }
        }
    }
    Ok(())
}
