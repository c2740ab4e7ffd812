//! Group norm and layer norm against the composed layers in f64.

use candle_core::{DType, Result, Tensor};

use super::buffer::{Buffer, Flowing};
use super::case::{Case, Results, normal, numbers};
use super::emulator::Emulator;
use crate::nn;
use crate::nn::cuda::group_norm::{Backward, GroupNorm};
use crate::nn::cuda::layer_norm::LayerNorm;

/// The gradients of bias and weight, as they lie one after the other, as those of weight and bias.
fn weight_and_bias(both: Buffer<f32>, channels: usize) -> Result<[Tensor; 2]> {
    let both = Flowing::F32(both).tensor(&[2, channels])?;
    Ok([both.get(1)?, both.get(0)?])
}

/// x, weight and bias. The mean of x is far from 0, where a variance from sums of squares would lose its digits.
fn operands(shape: &[usize], channels: usize, dtype: DType) -> Result<Vec<Tensor>> {
    let x = (normal("x", shape, dtype)? + 20.0)?;
    let rounded = x.to_dtype(dtype)?.to_dtype(DType::F64)?;
    let weight = normal("weight", &[channels], DType::F32)?;
    Ok(vec![rounded, weight, normal("bias", &[channels], DType::F32)?])
}

fn run_group_norm(emulator: &Emulator, shape: &GroupNorm, case: &Case<'_>, dtype: DType) -> Result<Results> {
    let dims = case.operands[0].dims();
    let mut x = Flowing::of(&case.operands[0], dtype)?;
    let mut dy = Flowing::of(&case.cotangent, dtype)?;
    let [mut weight, mut bias] = [Buffer::of(&case.operands[1])?, Buffer::of(&case.operands[2])?];
    let [mut y, mut dx] = [Flowing::nan(dims, dtype)?, Flowing::nan(dims, dtype)?];
    let mut statistics = Buffer::nan(shape.statistics());
    let mut partial = Buffer::nan(shape.forward_partial());
    let inputs = [x.pointer(), weight.pointer(), bias.pointer()];
    shape.forward(emulator, inputs, [y.pointer(), statistics.pointer(), partial.pointer()])?;
    let mut partial = Buffer::nan(shape.backward_partial());
    let (mut sums, mut both) = (Buffer::nan(shape.sums()), Buffer::nan(2 * shape.channels));
    let operands = Backward {
        x: x.pointer(),
        dy: dy.pointer(),
        weight: weight.pointer(),
        bias: bias.pointer(),
        statistics: statistics.pointer(),
        partial: partial.pointer(),
        sums: sums.pointer(),
    };
    shape.backward(emulator, &operands, Some(dx.pointer()), Some(both.pointer()))?;
    let [of_weight, of_bias] = weight_and_bias(both, shape.channels)?;
    Ok(Results { output: y.tensor(dims)?, gradients: vec![dx.tensor(dims)?, of_weight, of_bias] })
}

fn check_group_norm([batch, rows, channels, groups]: [usize; 4], silu: bool, dtype: DType) -> Result<()> {
    let operation = |t: &[Tensor]| {
        let norm = nn::GroupNorm { weight: t[1].clone(), bias: t[2].clone(), groups, eps: 1e-5 };
        let x = t[0].transpose(1, 2)?;
        if silu { norm.forward_silu(&x)? } else { norm.forward(&x)? }.transpose(1, 2)
    };
    let case = Case::new(&operation, operands(&[batch, rows, channels], channels, dtype)?, dtype)?;
    let shape = GroupNorm { numbers: numbers(dtype), batch, rows, channels, groups, eps: 1e-5, silu };
    case.check(&format!("{shape:?}"), dtype, None, |emulator| run_group_norm(emulator, &shape, &case, dtype))
}

/// One slab and several, groups that share a run of 16 bytes, more columns than threads, odd channels.
#[test]
fn group_norm_agrees_with_f64() -> Result<()> {
    for dtype in [DType::BF16, DType::F32] {
        for silu in [false, true] {
            check_group_norm([2, 35, 64, 32], silu, dtype)?;
            check_group_norm([1, 33, 40, 4], silu, dtype)?;
            check_group_norm([3, 5, 21, 7], silu, dtype)?;
            check_group_norm([1, 3, 4, 1], silu, dtype)?;
        }
        check_group_norm([1, 9, 2080, 32], true, dtype)?;
        check_group_norm([1, 3, 330, 3], false, dtype)?;
    }
    Ok(())
}

fn run_layer_norm(emulator: &Emulator, shape: &LayerNorm, case: &Case<'_>, dtype: DType) -> Result<Results> {
    let dims = case.operands[0].dims();
    let mut x = Flowing::of(&case.operands[0], dtype)?;
    let mut dy = Flowing::of(&case.cotangent, dtype)?;
    let [mut weight, mut bias] = [Buffer::of(&case.operands[1])?, Buffer::of(&case.operands[2])?];
    let [mut y, mut dx] = [Flowing::nan(dims, dtype)?, Flowing::nan(dims, dtype)?];
    let mut statistics = Buffer::nan(shape.statistics());
    let (mut partial, mut both) = (Buffer::nan(shape.partial()), Buffer::nan(2 * shape.channels));
    let inputs = [x.pointer(), weight.pointer(), bias.pointer()];
    shape.forward(emulator, inputs, [y.pointer(), statistics.pointer()])?;
    let inputs = [x.pointer(), dy.pointer(), weight.pointer(), statistics.pointer()];
    shape.backward(emulator, inputs, dx.pointer())?;
    let inputs = [x.pointer(), dy.pointer(), statistics.pointer(), partial.pointer()];
    shape.parameters_backward(emulator, inputs, both.pointer())?;
    let [of_weight, of_bias] = weight_and_bias(both, shape.channels)?;
    Ok(Results { output: y.tensor(dims)?, gradients: vec![dx.tensor(dims)?, of_weight, of_bias] })
}

#[test]
fn layer_norm_agrees_with_f64() -> Result<()> {
    for dtype in [DType::BF16, DType::F32] {
        for [rows, channels] in [[37, 64], [3, 1288], [6, 33], [1, 3], [530, 8]] {
            let operation = |t: &[Tensor]| {
                nn::LayerNorm { weight: t[1].clone(), bias: t[2].clone(), eps: 1e-5 }.forward(&t[0])
            };
            let case = Case::new(&operation, operands(&[rows, channels], channels, dtype)?, dtype)?;
            let shape = LayerNorm { numbers: numbers(dtype), rows, channels, eps: 1e-5 };
            case.check(&format!("{shape:?}"), dtype, None, |emulator| {
                run_layer_norm(emulator, &shape, &case, dtype)
            })?;
        }
    }
    Ok(())
}
