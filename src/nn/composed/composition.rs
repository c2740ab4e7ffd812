//! An operation composed of candle's own, and what candle's kernels for CUDA cannot count.

use candle_core::{Result, Tensor, bail};

use crate::nn::operation::{self, Operation, Output};

/// One operation: the function of its operands, and its gradients.
pub(in crate::nn) trait Composed<const N: usize>: 'static {
    const NAME: &'static str;

    /// The output. The operands are not tracked.
    fn forward(&self, operands: &[Tensor; N]) -> Result<Tensor>;

    /// The gradient of each operand that is `wanted`, in any type.
    fn backward(
        &self,
        operands: &[Tensor; N],
        output: &Tensor,
        gradient: &Tensor,
        wanted: [bool; N],
    ) -> Result<[Option<Tensor>; N]>;
}

/// A composed operation as a node of the graph.
struct Composition<C>(C);

impl<C: Composed<N>, const N: usize> Operation<N> for Composition<C> {
    fn forward(&self, operands: &[Tensor; N]) -> Result<Output> {
        check(C::NAME, &operands.each_ref())?;
        let output = self.0.forward(operands)?.contiguous()?;
        check(C::NAME, &[&output])?;
        Ok(Output::Tensor(output))
    }

    fn backward(
        &self,
        operands: &[Tensor; N],
        output: &Tensor,
        gradient: &Tensor,
        wanted: [bool; N],
    ) -> Result<[Option<Tensor>; N]> {
        self.0.backward(operands, output, gradient, wanted)
    }
}

/// Applies an operation.
pub(in crate::nn) fn apply<Op: Composed<N>, const N: usize>(
    op: Op,
    operands: [&Tensor; N],
) -> Result<Tensor> {
    operation::apply(Composition(op), operands)
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
