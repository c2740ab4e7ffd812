//! Gated GELU against the composed layer in f64.

use candle_core::{DType, Result, Tensor};

use super::buffer::Flowing;
use super::case::{Case, Results, normal, numbers};
use crate::nn;
use crate::nn::cuda::geglu::Geglu;

/// Rows of whole runs of 16 bytes, longer than a block, and odd ones.
#[test]
fn geglu_agrees_with_f64() -> Result<()> {
    for dtype in [DType::BF16, DType::F32] {
        for [rows, half] in [[3, 64], [2, 2100], [5, 7], [1, 1]] {
            // Gates up to about 12, where the far tail of the normal distribution must keep its digits.
            let x = (normal("x", &[rows, 2 * half], dtype)? * 4.0)?;
            let operation = |t: &[Tensor]| nn::geglu(&t[0]);
            let case = Case::new(&operation, vec![x], dtype)?;
            let shape = Geglu { numbers: numbers(dtype), rows, half };
            case.check(&format!("{shape:?}"), dtype, None, |emulator| {
                let mut x = Flowing::of(&case.operands[0], dtype)?;
                let mut dy = Flowing::of(&case.cotangent, dtype)?;
                let mut y = Flowing::nan(&[rows, half], dtype)?;
                let mut dx = Flowing::nan(&[rows, 2 * half], dtype)?;
                shape.forward(emulator, x.pointer(), y.pointer())?;
                shape.backward(emulator, [x.pointer(), dy.pointer()], dx.pointer())?;
                Ok(Results {
                    output: y.tensor(&[rows, half])?,
                    gradients: vec![dx.tensor(&[rows, 2 * half])?],
                })
            })?;
        }
    }
    Ok(())
}
