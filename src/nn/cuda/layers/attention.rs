//! Attention of several heads.

use candle_core::{DType, Result, Shape, Tensor};

use super::{Saved, machine_of, output, tensor};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::attention as kernels;
use crate::nn::cuda::machine::Machine;
use crate::nn::operation::{Operation, Output};

fn shape([q, k]: [&Array; 2], heads: usize, causal: bool) -> Result<kernels::Attention> {
    let ((batch, n, width), (_, m, _)) = (q.shape.dims3()?, k.shape.dims3()?);
    Ok(kernels::Attention { batch, heads, n, m, d: width / heads, causal, numbers: q.numbers()? })
}

/// The output, shaped as q, and the log-sum-exp of each row of scores.
pub(in crate::nn) fn attend(
    machine: &dyn Machine,
    [q, k, v]: [&Array; 3],
    heads: usize,
    causal: bool,
) -> Result<[Array; 2]> {
    let shape = shape([q, k], heads, causal)?;
    let out = machine.allocate(q.shape.clone(), q.dtype)?;
    let lse = machine.allocate(Shape::from(shape.statistics()), DType::F32)?;
    let inputs = [q, k, v].map(|operand| operand.pointer);
    shape.forward(machine, inputs, [out.pointer, lse.pointer])?;
    Ok([out, lse])
}

/// The gradients of q, and of k and v, if they are wanted.
pub(in crate::nn) fn attend_backward(
    machine: &dyn Machine,
    [q, k, v]: [&Array; 3],
    [out, lse, gradient]: [&Array; 3],
    (heads, causal): (usize, bool),
    [of_q, of_kv]: [bool; 2],
) -> Result<[Option<Array>; 3]> {
    let shape = shape([q, k], heads, causal)?;
    let delta = machine.allocate(lse.shape.clone(), DType::F32)?;
    let like = |wanted: bool, operand: &Array| {
        wanted.then(|| machine.allocate(operand.shape.clone(), operand.dtype)).transpose()
    };
    let (dq, dk, dv) = (like(of_q, q)?, like(of_kv, k)?, like(of_kv, v)?);
    shape.backward(
        machine,
        [q, k, v].map(|operand| operand.pointer),
        [out, lse, gradient, &delta].map(|operand| operand.pointer),
        dq.as_ref().map(|dq| dq.pointer),
        dk.as_ref().zip(dv.as_ref()).map(|(dk, dv)| [dk.pointer, dv.pointer]),
    )?;
    Ok([dq, dk, dv])
}

/// Operands: q [batch, n, heads*d], k and v [batch, m, heads*d], in bf16, or in f16 without gradients.
pub(in crate::nn) struct Attention {
    heads: usize,
    causal: bool,
    /// The log-sum-exp of each row of scores.
    lse: Saved,
}

impl Attention {
    pub(in crate::nn) fn new(heads: usize, causal: bool) -> Self {
        Self { heads, causal, lse: Saved::none() }
    }
}

impl Operation<3> for Attention {
    fn forward(&self, [q, k, v]: &[Tensor; 3]) -> Result<Output> {
        let operands = [&Array::of(q)?, &Array::of(k)?, &Array::of(v)?];
        let [out, lse] = attend(&*machine_of(q)?, operands, self.heads, self.causal)?;
        self.lse.put(lse);
        output(out)
    }

    fn backward(
        &self,
        [q, k, v]: &[Tensor; 3],
        out: &Tensor,
        gradient: &Tensor,
        [of_q, of_k, of_v]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let operands = [&Array::of(q)?, &Array::of(k)?, &Array::of(v)?];
        let (out, gradient) = (Array::of(out)?, Array::of(gradient)?);
        let settings = (self.heads, self.causal);
        let [dq, dk, dv] = self.lse.with(|lse| {
            let known = [&out, lse, &gradient];
            attend_backward(&*machine_of(q)?, operands, known, settings, [of_q, of_k || of_v])
        })?;
        Ok([tensor(dq)?, tensor(dk.filter(|_| of_k))?, tensor(dv.filter(|_| of_v))?])
    }
}
