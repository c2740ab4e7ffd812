//! How an operation composed of candle's own is applied: within what candle's kernels for CUDA can count.

use candle_core::{Result, Tensor, bail};

use crate::nn::operation::{self, Operation};

/// Applies an operation whose output candle computes.
pub(in crate::nn) fn apply<Op: Operation<N>, const N: usize>(
    name: &str,
    op: Op,
    operands: [&Tensor; N],
) -> Result<Tensor> {
    check(name, &operands)?;
    let output = operation::apply(op, operands)?.contiguous()?;
    check(name, &[&output])?;
    Ok(output)
}

/// candle's CUDA kernels compute the places of elements in 32 bits.
const MOST_ELEMENTS: usize = u32::MAX as usize;

/// Fails if one of these tensors has more elements than `most`.
fn check_sizes(name: &str, tensors: &[&Tensor], most: usize) -> Result<()> {
    match tensors.iter().find(|tensor| tensor.elem_count() > most) {
        None => Ok(()),
        Some(tensor) => bail!(
            "{name}: a tensor of {:?} has {} elements; kernels on this device count to {most}: lower the batch",
            tensor.dims(),
            tensor.elem_count()
        ),
    }
}

/// Fails if the device cannot count the elements of one of these tensors.
fn check(name: &str, tensors: &[&Tensor]) -> Result<()> {
    match tensors[0].device().is_cpu() {
        true => Ok(()),
        false => check_sizes(name, tensors, MOST_ELEMENTS),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn a_tensor_that_a_device_cannot_count_is_refused() -> Result<()> {
        let small = Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?;
        let large = Tensor::zeros((4, 3), DType::F32, &Device::Cpu)?;
        assert!(check_sizes("conv2d", &[&small, &large], 12).is_ok());
        let refused = check_sizes("conv2d", &[&small, &large], 11).expect_err("12 elements").to_string();
        assert!(refused.contains("conv2d: a tensor of [4, 3] has 12 elements"), "{refused}");
        Ok(())
    }
}
