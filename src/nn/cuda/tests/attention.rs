//! Attention against the composed layer in f64.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};

use super::buffer::{Buffer, Flowing};
use super::case::{Case, Results, normal};
use super::emulator::Emulator;
use crate::nn;
use crate::nn::cuda::attention::Attention;
use crate::nn::cuda::channels::Numbers;
use crate::nn::cuda::machine::Machine;
use crate::nn::cuda::{Counter, attend};

/// Forward, and the gradients of `wanted`: of q, and of k and v. What is not wanted is an error to write.
pub(super) fn run(
    emulator: &Emulator,
    shape: &Attention,
    operands: &[Tensor],
    cotangent: &Tensor,
    [of_q, of_kv]: [bool; 2],
) -> Result<Results> {
    let flowing = |tensor: &Tensor| Flowing::of(tensor, DType::BF16);
    let [mut q, mut k, mut v, mut d_out] =
        [flowing(&operands[0])?, flowing(&operands[1])?, flowing(&operands[2])?, flowing(cotangent)?];
    let nan = |tensor: &Tensor| Flowing::nan(tensor.dims(), DType::BF16);
    let [mut out, mut dq, mut dk, mut dv] =
        [nan(&operands[0])?, nan(&operands[0])?, nan(&operands[1])?, nan(&operands[2])?];
    let (mut lse, mut delta) = (Buffer::nan(shape.statistics()), Buffer::nan(shape.statistics()));
    let inputs = [q.pointer(), k.pointer(), v.pointer()];
    shape.forward(emulator, inputs, [out.pointer(), lse.pointer()])?;
    shape.backward(
        emulator,
        inputs,
        [out.pointer(), lse.pointer(), d_out.pointer(), delta.pointer()],
        of_q.then(|| dq.pointer()),
        of_kv.then(|| [dk.pointer(), dv.pointer()]),
    )?;
    let gradients = [(dq, 0), (dk, 1), (dv, 2)];
    let gradients = gradients.map(|(gradient, i)| gradient.tensor(operands[i].dims()));
    Ok(Results {
        output: out.tensor(operands[0].dims())?,
        gradients: gradients.into_iter().collect::<Result<_>>()?,
    })
}

/// Forward alone: the output and the log-sum-exp.
fn forward(emulator: &Emulator, shape: &Attention, operands: &[Tensor]) -> Result<Vec<Tensor>> {
    let flowing = |tensor: &Tensor| Flowing::of(tensor, DType::BF16);
    let [mut q, mut k, mut v] = [flowing(&operands[0])?, flowing(&operands[1])?, flowing(&operands[2])?];
    let mut out = Flowing::nan(operands[0].dims(), DType::BF16)?;
    let mut lse = Buffer::nan(shape.statistics());
    shape.forward(emulator, [q.pointer(), k.pointer(), v.pointer()], [out.pointer(), lse.pointer()])?;
    Ok(vec![out.tensor(operands[0].dims())?, Tensor::new(lse.0, &Device::Cpu)?])
}

pub(super) fn operands(shape: &Attention) -> Result<Vec<Tensor>> {
    let &Attention { batch, heads, n, m, d, .. } = shape;
    let normal = |name, rows| normal(name, &[batch, rows, heads * d], DType::BF16);
    Ok(vec![normal("q", n)?, normal("k", m)?, normal("v", m)?])
}

fn check(shape: Attention) -> Result<()> {
    let Attention { heads, causal, .. } = shape;
    let operation = |t: &[Tensor]| nn::attention(&t[0], &t[1], &t[2], heads, causal);
    let case = Case::new(&operation, operands(&shape)?, DType::BF16)?;
    let [q, k, v] = [&case.operands[0], &case.operands[1], &case.operands[2]];
    // Each output is a mean of values, in which rounded weights err by a part of each value.
    let scale = operation(&[q.clone(), k.clone(), v.abs()?])?;
    case.check(&format!("{shape:?}"), DType::BF16, Some(&scale), |emulator| {
        run(emulator, &shape, &case.operands, &case.cotangent, [true, true])
    })
}

pub(super) const fn shape([batch, heads, n, m, d]: [usize; 5], causal: bool) -> Attention {
    Attention { batch, heads, n, m, d, causal, numbers: Numbers::Bf16 }
}

/// Every size of head, with tiles that are full, ragged and nearly empty; the second has several tiles of both.
#[test]
fn attention_agrees_with_f64() -> Result<()> {
    for d in [40, 64, 80, 160] {
        for [batch, heads, n, m] in [[2, 2, 33, 77], [1, 1, 130, 140], [1, 2, 1, 1], [1, 1, 64, 64]] {
            check(shape([batch, heads, n, m, d], false))?;
        }
    }
    Ok(())
}

#[test]
fn causal_attention_agrees_with_f64() -> Result<()> {
    for d in [40, 64, 80, 160] {
        check(shape([1, 2, 77, 77, d], true))?;
    }
    check(shape([1, 1, 130, 130, 64], true))
}

/// Heads as in an autoencoder, without gradients: tiles that are full, ragged and nearly empty, and several heads.
#[test]
fn wide_heads_agree_with_f64() -> Result<()> {
    for ([batch, heads, n, m], causal) in
        [([1, 1, 64, 64], false), ([2, 1, 33, 35], false), ([1, 2, 1, 1], false), ([1, 1, 40, 40], true)]
    {
        let shape = shape([batch, heads, n, m, 512], causal);
        let operation = |t: &[Tensor]| nn::attention(&t[0], &t[1], &t[2], heads, causal);
        let case = Case::new(&operation, operands(&shape)?, DType::BF16)?;
        let [q, k, v] = [&case.operands[0], &case.operands[1], &case.operands[2]];
        let scale = operation(&[q.clone(), k.clone(), v.abs()?])?;
        case.check_forward(&format!("{shape:?}"), DType::BF16, Some(&scale), |emulator| {
            forward(emulator, &shape, &case.operands)
        })?;
    }
    Ok(())
}

/// An autoencoder's layer for a picture of 1024x1024: 16,384 pixels as the rows of one head. Nothing like its scores, 0.5 GB, is
/// allocated, and each block has the memory that every card since Ampere gives.
#[test]
fn wide_heads_take_no_memory_for_scores() -> Result<()> {
    let counter = Counter::default();
    let (pixels, size) = (16_384, Shape::from((1, 16_384, 512)));
    let [q, k, v] = [(); 3].map(|()| counter.allocate(size.clone(), DType::BF16));
    let before = 3 * 2 * 512 * pixels;
    attend(&counter, [&q?, &k?, &v?], 1, false)?;
    assert_eq!(counter.peak() as usize, before + 2 * 512 * pixels + 4 * pixels);
    let largest = shape([1, 1, pixels, pixels, 512], false);
    assert!(largest.shared_bytes(1, 0) <= 99 << 10, "{} bytes", largest.shared_bytes(1, 0));
    Ok(())
}

/// The layer takes the kernel where nobody asks for gradients, and otherwise the composition.
#[test]
fn wide_heads_have_gradients_by_composition() -> Result<()> {
    let operands = operands(&shape([1, 1, 5, 7, 512], false))?;
    let [q, k, v] = [&operands[0], &operands[1], &operands[2]].map(|operand| operand.to_dtype(DType::BF16));
    let (q, k, v) = (q?, k?, v?);
    let (plain, launches) = nn::emulating(|| nn::attention(&q, &k, &v, 1, false));
    assert_eq!((plain?.dims(), launches), (&[1, 5, 512][..], 1));
    let (tracked, launches) = nn::emulating(|| {
        let q = Var::from_tensor(&q)?;
        let (_, gradients) = nn::differentiate(|| nn::attention(&q, &k, &v, 1, false)?.sum_all())?;
        Ok::<_, candle_core::Error>(gradients.get(&q).is_some())
    });
    assert_eq!((tracked?, launches), (true, 0));
    Ok(())
}

/// Scores far beyond what an exponential holds, and rows that see one key with all of their weight.
#[test]
fn large_scores_neither_overflow_nor_vanish() -> Result<()> {
    let shape = shape([1, 1, 70, 90, 64], false);
    let mut operands = operands(&shape)?;
    operands[0] = (&operands[0] * 64.0)?;
    let operation = |t: &[Tensor]| nn::attention(&t[0], &t[1], &t[2], 1, false);
    let cotangent = normal("cotangent", &[1, 70, 64], DType::BF16)?;
    let case = Case { operation: &operation, operands, cotangent };
    let scale = operation(&[case.operands[0].clone(), case.operands[1].clone(), case.operands[2].abs()?])?;
    case.check("large scores", DType::BF16, Some(&scale), |emulator| {
        run(emulator, &shape, &case.operands, &case.cotangent, [true, true])
    })
}

#[test]
fn a_frozen_operand_gets_no_gradient_and_changes_no_other() -> Result<()> {
    let shape = shape([1, 2, 20, 30, 40], false);
    let (operands, cotangent) = (operands(&shape)?, normal("cotangent", &[1, 20, 80], DType::BF16)?);
    let emulator = Emulator::schedules()[0];
    let numbers = |wanted| -> Result<Vec<Vec<f64>>> {
        let results = run(&emulator, &shape, &operands, &cotangent, wanted)?;
        results.gradients.iter().map(|gradient| gradient.flatten_all()?.to_vec1()).collect()
    };
    let (all, of_q, of_kv) = (numbers([true, true])?, numbers([true, false])?, numbers([false, true])?);
    let untouched = |numbers: &[f64]| numbers.iter().all(|x| x.is_nan());
    assert!(of_q[0] == all[0] && untouched(&of_q[1]) && untouched(&of_q[2]));
    assert!(untouched(&of_kv[0]) && of_kv[1] == all[1] && of_kv[2] == all[2]);
    Ok(())
}

#[test]
fn nan_is_not_hidden() -> Result<()> {
    let shape = shape([1, 1, 3, 5, 40], false);
    let mut operands = operands(&shape)?;
    operands[1] = (&operands[1] * f64::NAN)?;
    let cotangent = normal("cotangent", &[1, 3, 40], DType::BF16)?;
    let results = run(&Emulator::schedules()[0], &shape, &operands, &cotangent, [true, true])?;
    assert!(results.output.flatten_all()?.to_vec1::<f64>()?.iter().all(|x| x.is_nan()));
    Ok(())
}
