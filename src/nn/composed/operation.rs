//! A composed operation and its node in candle's graph.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use crate::nn::gradient;

/// One operation: the function of its operands, and its gradients.
pub(in crate::nn) trait Composed<const N: usize>: Send + Sync + 'static {
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

/// Applies an operation of one operand.
pub(in crate::nn) fn apply1<Op: Composed<1>>(op: Op, x: &Tensor) -> Result<Tensor> {
    check(Op::NAME, &[x])?;
    let output = op.forward(&[x.detach()])?.contiguous()?;
    check(Op::NAME, &[&output])?;
    if x.track_op() { x.apply_op1(Made::new(op, output)) } else { Ok(output) }
}

/// Applies an operation of three operands.
pub(in crate::nn) fn apply3<Op: Composed<3>>(op: Op, operands: [&Tensor; 3]) -> Result<Tensor> {
    check(Op::NAME, &operands)?;
    let output = op.forward(&operands.map(Tensor::detach))?.contiguous()?;
    check(Op::NAME, &[&output])?;
    let [a, b, c] = operands;
    if operands.iter().any(|operand| operand.track_op()) {
        a.apply_op3(b, c, Made::new(op, output))
    } else {
        Ok(output)
    }
}

/// An operation to be added to candle's graph, with its output already computed.
struct Made<Op> {
    op: Op,
    /// Held until candle asks for it.
    output: Mutex<Option<Tensor>>,
}

impl<Op> Made<Op> {
    fn new(op: Op, output: Tensor) -> Self {
        Self { op, output: Mutex::new(Some(output)) }
    }

    fn take(&self) -> Tensor {
        let output = self.output.lock().expect("nothing panics while it holds the lock").take();
        output.expect("BUG: an operation ran twice")
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        let output = self.take();
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("the operands are on different devices"),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        let output = self.take();
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("the operands are on different devices"),
        }
    }

    fn gradients<const N: usize>(
        &self,
        operands: [&Tensor; N],
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; N]>
    where
        Op: Composed<N>,
    {
        let (wanted, detached) = (operands.map(Tensor::track_op), operands.map(Tensor::detach));
        let mut gradients = self.op.backward(&detached, &output.detach(), &gradient.contiguous()?, wanted)?;
        for (operand, gradient) in operands.into_iter().zip(&mut gradients) {
            if let Some(made) = gradient.take() {
                *gradient = gradient::give(operand, made.to_dtype(operand.dtype())?)?;
            }
        }
        Ok(gradients)
    }
}

impl<Op: Composed<1>> CustomOp1 for Made<Op> {
    fn name(&self) -> &'static str {
        Op::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(&self, x: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [gradient] = self.gradients([x], output, gradient)?;
        Ok(gradient)
    }
}

impl<Op: Composed<3>> CustomOp3 for Made<Op> {
    fn name(&self) -> &'static str {
        Op::NAME
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [of_a, of_b, of_c] = self.gradients([a, b, c], output, gradient)?;
        Ok((of_a, of_b, of_c))
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
