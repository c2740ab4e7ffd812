//! An operation with its own backward pass as a node in candle's graph.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::gradient;

/// One operation: the function of its operands, and its gradients.
pub(super) trait Operation<const N: usize>: Send + Sync + 'static {
    const NAME: &'static str;

    /// The output. The operands are not tracked.
    fn forward(&self, operands: &[Tensor; N]) -> Result<Output>;

    /// The gradient of each operand that is `wanted`, in any type.
    fn backward(
        &self,
        operands: &[Tensor; N],
        output: &Tensor,
        gradient: &Tensor,
        wanted: [bool; N],
    ) -> Result<[Option<Tensor>; N]>;
}

/// What an operation gives.
pub(super) enum Output {
    /// A tensor. candle's graph needs a storage of its own, so a tracked one is copied.
    Tensor(Tensor),
    /// Memory that was written for this output, which becomes the tensor.
    Storage(Storage, Shape),
}

impl Output {
    fn tensor(self) -> Tensor {
        match self {
            Self::Tensor(tensor) => tensor,
            Self::Storage(storage, shape) => Tensor::from_storage(storage, shape, BackpropOp::none(), false),
        }
    }
}

/// Applies an operation of one operand.
pub(super) fn apply1<Op: Operation<1>>(op: Op, x: &Tensor) -> Result<Tensor> {
    let output = op.forward(&[x.detach()])?;
    if x.track_op() { x.apply_op1(Made::new(op, output)) } else { Ok(output.tensor()) }
}

/// Applies an operation of two operands.
pub(super) fn apply2<Op: Operation<2>>(op: Op, operands: [&Tensor; 2]) -> Result<Tensor> {
    let output = op.forward(&operands.map(Tensor::detach))?;
    let [a, b] = operands;
    let tracked = operands.iter().any(|operand| operand.track_op());
    if tracked { a.apply_op2(b, Made::new(op, output)) } else { Ok(output.tensor()) }
}

/// Applies an operation of three operands.
pub(super) fn apply3<Op: Operation<3>>(op: Op, operands: [&Tensor; 3]) -> Result<Tensor> {
    let output = op.forward(&operands.map(Tensor::detach))?;
    let [a, b, c] = operands;
    let tracked = operands.iter().any(|operand| operand.track_op());
    if tracked { a.apply_op3(b, c, Made::new(op, output)) } else { Ok(output.tensor()) }
}

/// An operation to be added to candle's graph, with its output already computed.
struct Made<Op> {
    op: Op,
    /// Held until candle asks for it.
    output: Mutex<Option<Output>>,
}

impl<Op> Made<Op> {
    fn new(op: Op, output: Output) -> Self {
        Self { op, output: Mutex::new(Some(output)) }
    }

    fn take(&self) -> Output {
        let output = self.output.lock().expect("nothing panics while it holds the lock").take();
        output.expect("BUG: an operation ran twice")
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take() {
            Output::Storage(Storage::Cpu(storage), shape) => Ok((storage, shape)),
            Output::Tensor(output) => match &*output.storage_and_layout().0 {
                Storage::Cpu(storage) => Ok((storage.try_clone(output.layout())?, output.shape().clone())),
                _ => bail!("the operands are on different devices"),
            },
            Output::Storage(..) => bail!("the operands are on different devices"),
        }
    }

    fn on_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take() {
            Output::Storage(Storage::Cuda(storage), shape) => Ok((storage, shape)),
            Output::Tensor(output) => match &*output.storage_and_layout().0 {
                Storage::Cuda(storage) => Ok((storage.try_clone(output.layout())?, output.shape().clone())),
                _ => bail!("the operands are on different devices"),
            },
            Output::Storage(..) => bail!("the operands are on different devices"),
        }
    }

    fn gradients<const N: usize>(
        &self,
        operands: [&Tensor; N],
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; N]>
    where
        Op: Operation<N>,
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

impl<Op: Operation<1>> CustomOp1 for Made<Op> {
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

impl<Op: Operation<2>> CustomOp2 for Made<Op> {
    fn name(&self) -> &'static str {
        Op::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
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
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [of_a, of_b] = self.gradients([a, b], output, gradient)?;
        Ok((of_a, of_b))
    }
}

impl<Op: Operation<3>> CustomOp3 for Made<Op> {
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
