//! An operation with its own gradients, and how it is applied: at once, and on the tape where a gradient may be wanted.

use candle_core::{CpuStorage, Result, Shape, Storage, Tensor};

use super::tape::{self, Step};

/// One operation: the function of its operands, and its gradients.
pub(super) trait Operation<const N: usize>: 'static {
    /// The output. The operands are contiguous and have no graph.
    fn forward(&self, operands: &[Tensor; N]) -> Result<Output>;

    /// The gradient of each operand that is `wanted`, in any type. All tensors are contiguous.
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
    /// Memory that was written for this output, which becomes the tensor.
    Storage(Storage, Shape),
    /// A tensor that candle computed. On the tape its memory is copied, because candle shares it with no variable.
    Tensor(Tensor),
    /// A tensor that shares the memory of an operand. Only operations of `nn` may use it: to candle it is no variable.
    View(Tensor),
}

impl Output {
    /// New numbers on the CPU.
    pub(super) fn numbers(numbers: Vec<f32>, shape: impl Into<Shape>) -> Self {
        Self::Storage(Storage::Cpu(CpuStorage::F32(numbers)), shape.into())
    }

    fn tensor(self, on_tape: bool) -> Result<Tensor> {
        match self {
            Self::Storage(storage, shape) => Ok(tape::tensor(storage, shape, on_tape)),
            Self::Tensor(tensor) if on_tape => Ok(candle_core::Var::from_tensor(&tensor)?.into_inner()),
            Self::Tensor(tensor) | Self::View(tensor) => Ok(tensor),
        }
    }
}

/// Applies an operation.
pub(super) fn apply<Op: Operation<N>, const N: usize>(op: Op, operands: [&Tensor; N]) -> Result<Tensor> {
    let wanted = operands.map(tape::tracks);
    let on_tape = tape::records() && wanted.contains(&true);
    let output = op.forward(&plain(operands)?)?.tensor(on_tape)?;
    if on_tape {
        tape::write(&output, Box::new(Applied { op, operands: operands.map(Tensor::clone), wanted }));
    }
    Ok(output)
}

/// The operands without their graphs, contiguous.
fn plain<const N: usize>(operands: [&Tensor; N]) -> Result<[Tensor; N]> {
    let mut plain = operands.map(Tensor::detach);
    for operand in &mut plain {
        *operand = operand.contiguous()?;
    }
    Ok(plain)
}

/// An operation with its operands.
struct Applied<Op, const N: usize> {
    op: Op,
    operands: [Tensor; N],
    wanted: [bool; N],
}

impl<Op: Operation<N>, const N: usize> Step for Applied<Op, N> {
    fn back(
        &self,
        output: &Tensor,
        gradient: &Tensor,
        give: &mut dyn FnMut(&Tensor, Tensor) -> Result<()>,
    ) -> Result<()> {
        let operands = plain(self.operands.each_ref())?;
        let gradient = gradient.detach().contiguous()?;
        let gradients = self.op.backward(&operands, &output.detach(), &gradient, self.wanted)?;
        for (operand, gradient) in self.operands.iter().zip(gradients) {
            if let Some(gradient) = gradient {
                give(operand, gradient.to_dtype(operand.dtype())?)?;
            }
        }
        Ok(())
    }
}

/// The same tensor as the output of an operation on the tape, so that another tape can begin with it.
pub fn settled(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_variable() || !tape::tracks(tensor) { Ok(tensor.clone()) } else { apply(Settled, [tensor]) }
}

struct Settled;

impl Operation<1> for Settled {
    fn forward(&self, [tensor]: &[Tensor; 1]) -> Result<Output> {
        Ok(Output::Tensor(tensor.clone()))
    }

    fn backward(
        &self,
        _: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(gradient.clone())])
    }
}

/// An operand's gradient on the CPU, if it is wanted.
pub(super) fn gradient_of(
    operand: &Tensor,
    wanted: bool,
    gradient: impl FnOnce() -> Vec<f32>,
) -> Result<Option<Tensor>> {
    let tensor = || Tensor::from_vec(gradient(), operand.shape(), operand.device());
    wanted.then(tensor).transpose()
}

/// `operand` with another shape of as many elements, without a copy.
pub(super) fn reshape(operand: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    apply(Reshape(shape.into()), [operand])
}

struct Reshape(Shape);

impl Operation<1> for Reshape {
    fn forward(&self, [operand]: &[Tensor; 1]) -> Result<Output> {
        Ok(Output::View(operand.reshape(&self.0)?))
    }

    fn backward(
        &self,
        [operand]: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(gradient.reshape(operand.shape())?)])
    }
}
