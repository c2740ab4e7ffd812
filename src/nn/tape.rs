//! The tape of a forward pass, and the way back through it.
//!
//! candle's backward pass adds every gradient to fresh zeros (huggingface/candle#1241): three more passes over memory for
//! each edge of the graph, most of which carry one gradient. So the operations of `nn` are not in candle's graph. While a
//! forward pass is recorded, they write themselves on a tape, from which their gradients are computed in reverse order; a
//! gradient is summed only where a value was used twice.
//!
//! Operations of candle may stand between them. To candle, the output of an operation of `nn` is a variable. So its graph
//! holds only what lies between two operations, and its own backward pass runs for that piece.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::backprop::GradStore;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, Storage, Tensor, TensorId, Var, bail,
};

thread_local! {
    /// What is recorded on this thread.
    static OPEN: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// How two gradients of a tensor are added.
pub(super) type Sum = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// The operations of a forward pass, in their order.
pub struct Tape {
    sum: Sum,
    entries: Vec<Entry>,
    /// Outputs that share the memory of an operand. They are no variables to candle.
    views: HashSet<TensorId>,
}

struct Entry {
    output: Tensor,
    step: Box<dyn Step>,
}

/// An operation that was applied.
pub(super) trait Step {
    /// Hands the gradient of each operand that is wanted to `give`, given the output and its gradient.
    fn back(
        &self,
        output: &Tensor,
        gradient: &Tensor,
        give: &mut dyn FnMut(&Tensor, Tensor) -> Result<()>,
    ) -> Result<()>;
}

/// The gradients of what a tape did not compute: of variables, and of the outputs of other tapes.
pub struct Found {
    sum: Sum,
    gradients: HashMap<TensorId, Tensor>,
}

/// Runs a forward pass with its operations on a tape.
pub(super) fn record<T>(sum: Sum, forward: impl FnOnce() -> Result<T>) -> Result<(T, Tape)> {
    let tape = Tape { sum, entries: Vec::new(), views: HashSet::new() };
    let outer = OPEN.replace(Some(tape));
    let result = forward();
    let tape = OPEN.replace(outer).expect("BUG: a tape ended twice");
    Ok((result?, tape))
}

/// A tensor with the same numbers, for which there will be a gradient.
pub fn tracked(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_variable() { Ok(tensor.clone()) } else { Ok(Var::from_tensor(tensor)?.into_inner()) }
}

/// Whether a gradient may be wanted for this tensor.
pub(super) fn tracks(tensor: &Tensor) -> bool {
    let is_view = |tape: &Option<Tape>| tape.as_ref().is_some_and(|tape| tape.views.contains(&tensor.id()));
    tensor.track_op() || OPEN.with_borrow(is_view)
}

/// Whether a forward pass is recorded.
pub(super) fn records() -> bool {
    OPEN.with_borrow(Option::is_some)
}

/// Writes an operation on the tape.
pub(super) fn write(output: &Tensor, step: Box<dyn Step>) {
    OPEN.with_borrow_mut(|tape| {
        let tape = tape.as_mut().expect("BUG: nothing is recorded");
        if !output.is_variable() {
            tape.views.insert(output.id());
        }
        tape.entries.push(Entry { output: output.clone(), step });
    });
}

impl Tape {
    /// The gradients, given those of some outputs. Each operation is dropped when its gradients are known.
    pub fn backward(self, outputs: impl IntoIterator<Item = (Tensor, Tensor)>) -> Result<Found> {
        let mut found = Found { sum: self.sum, gradients: HashMap::new() };
        for (output, gradient) in outputs {
            found.give(&output, gradient)?;
        }
        for Entry { output, step } in self.entries.into_iter().rev() {
            let Some(gradient) = found.remove(&output) else { continue };
            step.back(&output, &gradient, &mut |operand, gradient| found.give(operand, gradient))?;
        }
        Ok(found)
    }
}

impl Found {
    /// The gradient of this tensor, if there is one.
    pub fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.gradients.get(&tensor.id())
    }

    /// The same, which is then not here any more.
    pub fn remove(&mut self, tensor: &Tensor) -> Option<Tensor> {
        self.gradients.remove(&tensor.id())
    }

    /// Adds the gradients of another pass.
    pub fn extend(&mut self, other: Self) -> Result<()> {
        other.gradients.into_iter().try_for_each(|(id, gradient)| self.add(id, gradient))
    }

    fn add(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.gradients.remove(&id) {
            Some(earlier) => (self.sum)(&earlier, &gradient)?,
            None => gradient,
        };
        self.gradients.insert(id, sum);
        Ok(())
    }

    /// Adds a gradient of a tensor; through candle's graph, if it has one.
    fn give(&mut self, tensor: &Tensor, gradient: Tensor) -> Result<()> {
        if tensor.dims() != gradient.dims() {
            bail!("the gradient of {:?} cannot be {:?}", tensor.dims(), gradient.dims())
        }
        if tensor.is_variable() || !tensor.track_op() {
            return self.add(tensor.id(), gradient);
        }
        let piece: GradStore = tensor.apply_op1(Seed(gradient))?.backward()?;
        for id in piece.get_ids() {
            self.add(*id, piece.get_id(*id).expect("BUG: the store has its own ids").clone())?;
        }
        Ok(())
    }
}

/// A scalar with a given gradient with respect to its operand, so that candle's backward pass can begin there.
struct Seed(Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn cuda_fwd(&self, operand: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let shape = Shape::from(());
        Ok((operand.device().zeros_impl(&shape, DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

/// A tensor of new memory, which is a variable to candle if it is on the tape.
pub(super) fn tensor(storage: Storage, shape: Shape, on_tape: bool) -> Tensor {
    Tensor::from_storage(storage, shape, BackpropOp::none(), on_tape)
}
