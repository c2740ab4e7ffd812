//! The layers of `nn`, counted.

use std::sync::Arc;

use candle_core::{DType, Result, Shape};

use super::Implementation;
use super::composed::{self, Cost};
use super::graph::{Done, Pass, Value};
use crate::nn::cuda::{self, Array, Machine};

/// What a norm is of.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// Groups of channels of an image, optionally followed by a SiLU.
    Groups {
        /// Number of groups.
        groups: usize,
        /// Whether SiLU follows.
        silu: bool,
    },
    /// Tokens.
    Last,
}

/// The weights of a layer.
#[derive(Clone)]
pub struct Parameters {
    /// As products read it: bf16, or f32 where the layer converts it itself.
    pub(super) weight: Arc<Array>,
    pub(super) bias: Option<Arc<Array>>,
    pub(super) trained: bool,
}

impl Pass {
    /// Weights of this shape, and a bias as long as their first dimension. Trained ones are f32, with a copy in bf16 if they are
    /// those of a linear layer, with moments, and with a moving average; others are bf16.
    pub fn parameters(&mut self, shape: &[usize], bias: bool, trained: bool) -> Result<Parameters> {
        let mut allocate = |shape: &[usize], dtype| -> Result<Arc<Array>> {
            let array = Arc::new(self.done.counter.allocate(Shape::from(shape), dtype)?);
            self.done.held.push(array.clone());
            Ok(array)
        };
        let is_matrix = shape.len() == 2;
        let own = if trained || shape.len() == 1 { DType::F32 } else { DType::BF16 };
        let mut weight = allocate(shape, own)?;
        let of_bias = bias.then(|| allocate(&shape[..1], DType::F32)).transpose()?;
        let mut trains = Vec::new();
        if trained {
            for _ in 0..3 {
                allocate(shape, DType::F32)?;
                of_bias.as_ref().map(|_| allocate(&shape[..1], DType::F32)).transpose()?;
            }
            let copied = is_matrix && self.implementation == Implementation::Kernels;
            if copied {
                weight = allocate(shape, DType::BF16)?;
            }
            trains.push((shape.iter().product::<usize>() as i64, copied));
            trains.extend(bias.then_some((shape[0] as i64, false)));
        }
        self.done.trained.extend(trains);
        Ok(Parameters { weight, bias: of_bias, trained })
    }

    pub(super) fn composes(&self) -> bool {
        self.implementation == Implementation::Composed
    }

    pub(super) fn charge(&self, cost: Cost) {
        self.done.counter.charge(cost.launches, cost.bytes);
    }

    /// A norm; `p` are its weight and bias.
    pub fn norm(&mut self, x: &Value, p: &Parameters, rows: Rows) -> Result<Value> {
        let (input, weight, composes) = (x.array.clone(), p.weight.clone(), self.composes());
        let (rows, silu) = match rows {
            Rows::Groups { groups, silu } => (cuda::Rows::Groups { groups, silu }, silu),
            Rows::Last => (cuda::Rows::Last, false),
        };
        self.done.counter.enter("norm");
        let norm = cuda::Norm { rows, eps: 1e-5 };
        let elements = input.shape.elem_count();
        self.done.least(4 * elements);
        let operands = [&*input, &*weight, &*weight];
        let (y, statistics) = if composes {
            self.charge(composed::norm(elements, silu));
            (self.done.like(&input)?, None)
        } else {
            let [y, statistics] = norm.forward(&self.done.counter, operands)?;
            (y, Some(statistics))
        };
        let trained = p.trained;
        Ok(self.node(&[x], trained, y, move |done, g, wanted| {
            done.least(6 * elements);
            let Some(statistics) = statistics else {
                done.charge(composed::norm_backward(elements, silu));
                return Ok(vec![wanted[0].then(|| done.like(&input)).transpose()?]);
            };
            let operands = [&*input, &*weight, &*weight];
            let wanted = [wanted[0], trained];
            let [of_x, of_both] = norm.backward(&done.counter, operands, [&statistics, g], wanted)?;
            done.gradients.extend(of_both);
            Ok(vec![of_x])
        }))
    }

    /// Attention of queries [b, n, heads*d] to keys and values [b, m, heads*d].
    pub fn attention(&mut self, [q, k, v]: [&Value; 3], heads: usize) -> Result<Value> {
        let (arrays, composes) = ([q, k, v].map(|value| value.array.clone()), self.composes());
        let [n, m] = [0, 1].map(|i: usize| arrays[i].shape.elem_count());
        self.done.counter.enter(if n == m { "self-attention" } else { "cross-attention" });
        self.done.least(4 * (n + m));
        let cost = composed::Attention::new(&arrays[0], &arrays[1], heads);
        let (y, lse) = if composes {
            self.charge(cost.forward());
            (self.done.like(&arrays[0])?, None)
        } else {
            let [y, lse] =
                cuda::attend(&self.done.counter, [&arrays[0], &arrays[1], &arrays[2]], heads, false)?;
            (y, Some(lse))
        };
        let y = Arc::new(y);
        let out = y.clone();
        Ok(self.node(&[q, k, v], false, y, move |done, g, wanted| {
            done.least(2 * (4 * n + 4 * m));
            let operands = [&*arrays[0], &*arrays[1], &*arrays[2]];
            let Some(lse) = lse else {
                done.charge(cost.backward());
                let share =
                    |(wanted, operand): (&bool, &&Array)| wanted.then(|| done.like(operand)).transpose();
                return wanted.iter().zip(&operands).map(share).collect();
            };
            let wanted = [wanted[0], wanted[1] || wanted[2]];
            let shares =
                cuda::attend_backward(&done.counter, operands, [&out, &lse, g], (heads, false), wanted)?;
            Ok(shares.into_iter().collect())
        }))
    }

    /// Gated GELU.
    pub fn geglu(&mut self, x: &Value) -> Result<Value> {
        let (input, composes) = (x.array.clone(), self.composes());
        let half = input.shape.elem_count() / 2;
        self.done.counter.enter("gated GELU");
        self.done.least(2 * 3 * half);
        let y = if composes {
            self.charge(composed::geglu(half));
            let mut dims = input.shape.dims().to_vec();
            *dims.last_mut().unwrap_or(&mut 0) /= 2;
            self.done.counter.allocate(Shape::from(dims), DType::BF16)?
        } else {
            cuda::gate(&self.done.counter, &input)?
        };
        Ok(self.node(&[x], false, y, move |done, g, _| {
            done.least(2 * 5 * half);
            if composes {
                done.charge(composed::geglu_backward(half));
                return Ok(vec![Some(done.like(&input)?)]);
            }
            Ok(vec![Some(cuda::gate_gradient(&done.counter, &input, g)?)])
        }))
    }

    /// A sum, whose operands have its gradient.
    pub fn add(&mut self, a: &Value, b: &Value) -> Result<Value> {
        let bytes = 3 * a.array.bytes();
        self.done.counter.enter("sum");
        self.done.least(bytes);
        let y = if self.composes() {
            self.done.counter.charge(1, bytes as u64);
            self.done.like(&a.array)?
        } else {
            cuda::sum(&self.done.counter, [&a.array, &b.array])?
        };
        Ok(self.node(&[a, b], false, y, |done, g, wanted| {
            wanted.iter().map(|wanted| wanted.then(|| done.like(g)).transpose()).collect()
        }))
    }

    /// Two images with their channels one after the other. Composed: a copy of each, and gradients that are views.
    pub fn concatenate(&mut self, a: &Value, b: &Value) -> Result<Value> {
        let (parts, composes) = ([a.array.clone(), b.array.clone()], self.composes());
        let bytes = 2 * (a.array.bytes() + b.array.bytes());
        self.done.counter.enter("concatenation");
        self.done.least(bytes);
        let y = if composes {
            self.done.counter.charge(2, bytes as u64);
            let mut dims = parts[0].shape.dims().to_vec();
            *dims.last_mut().unwrap_or(&mut 0) += parts[1].width();
            self.done.counter.allocate(Shape::from(dims), DType::BF16)?
        } else {
            cuda::concatenate(&self.done.counter, [&parts[0], &parts[1]])?
        };
        Ok(self.node(&[a, b], false, y, move |done, g, wanted| {
            done.least(bytes);
            if composes {
                let share =
                    |(wanted, part): (&bool, &Arc<Array>)| wanted.then(|| done.like(part)).transpose();
                return wanted.iter().zip(&parts).map(share).collect();
            }
            let wanted = [wanted[0], wanted[1]];
            Ok(cuda::split(&done.counter, [&parts[0], &parts[1]], g, wanted)?.into_iter().collect())
        }))
    }

    /// The same numbers in another shape. Composed, pixels and tokens are copies of each other.
    pub fn reshape(&mut self, x: &Value, dims: &[usize]) -> Result<Value> {
        let y = Array::counted(Shape::from(dims), DType::BF16, Box::new(x.array.clone()));
        if self.composes() {
            self.done.counter.charge(1, 2 * x.array.bytes() as u64);
        }
        let input = x.array.clone();
        Ok(self.node(&[x], false, y, move |done, _, _| Ok(vec![Some(done.like(&input)?)])))
    }

    /// The mean-square difference from another network's value, whose gradient the value then has.
    pub fn difference(&mut self, a: &Value, b: &Value) -> Result<()> {
        let elements = a.array.shape.elem_count();
        self.done.counter.enter("difference");
        self.done.least(2 * 5 * elements);
        if self.composes() {
            self.charge(composed::difference(elements));
        } else {
            let mean = cuda::difference(&self.done.counter, [&a.array, &b.array])?;
            cuda::difference_gradient(&self.done.counter, [&a.array, &b.array, &mean])?;
        }
        // Its weight, the sum of the losses, and their gradients: scalars.
        self.done.counter.charge(8, 0);
        self.seed(a)
    }

    /// The norm of all gradients, and the optimiser's update with the moving average.
    pub fn update(&mut self) -> Result<()> {
        self.done.counter.enter("optimiser");
        let trained = &self.done.trained;
        let elements: i64 = trained.iter().map(|(elements, _)| elements).sum();
        let copied: i64 = trained.iter().filter(|(_, copied)| *copied).map(|(elements, _)| elements).sum();
        let least = (4 + 36) * elements + 2 * copied;
        if self.composes() {
            self.charge(composed::update(trained.len(), elements as usize));
        } else {
            cuda::counted_update(&self.done.counter, trained)?;
        }
        self.done.least(least as usize);
        self.done.gradients.clear();
        Ok(())
    }
}

impl Done {
    /// Bytes that no implementation could avoid.
    pub(super) fn least(&mut self, bytes: usize) {
        self.least_bytes += bytes as u64;
    }

    pub(super) fn charge(&self, cost: Cost) {
        self.counter.charge(cost.launches, cost.bytes);
    }

    pub(super) fn like(&self, array: &Array) -> Result<Array> {
        self.counter.allocate(array.shape.clone(), array.dtype)
    }

    pub(super) fn bias_gradient(&mut self, g: &Array, bias: Option<Shape>, composes: bool) -> Result<()> {
        let Some(bias) = bias else { return Ok(()) };
        let made = if composes {
            self.counter.charge(2, (6 + 4) * g.shape.elem_count() as u64);
            self.counter.allocate(bias, DType::F32)?
        } else {
            cuda::bias_gradient(&self.counter, g, &bias)?
        };
        self.gradients.push(made);
        Ok(())
    }
}
