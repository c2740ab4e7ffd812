//! Values, the tape of a pass or candle's graph, and what is done around the layers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use candle_core::{DType, Result, Shape};

use super::{Counts, Implementation};
use crate::nn::cuda::{self, Array, Counter, Machine};

/// A tensor without numbers.
#[derive(Clone)]
pub struct Value {
    pub(super) array: Arc<Array>,
    id: usize,
    tracked: bool,
}

/// What a layer's backward pass gives: the gradients of its operands, in their order.
pub(super) type Backward = Box<dyn FnOnce(&mut Done, &Array) -> Result<Vec<Option<Array>>>>;

struct Node {
    layer: &'static str,
    operands: Vec<Value>,
    output: usize,
    backward: Backward,
}

/// What is counted, and what stays when a pass is over.
pub(super) struct Done {
    pub(super) counter: Counter,
    pub(super) least_bytes: u64,
    /// Gradients of weights.
    pub(super) gradients: Vec<Array>,
    /// Weights, moments, averages.
    pub(super) held: Vec<Arc<Array>>,
    /// Elements of each weight that is trained, and whether it has a copy.
    pub(super) trained: Vec<(i64, bool)>,
}

/// Passes through networks that share a GPU.
pub struct Pass {
    pub(super) implementation: Implementation,
    pub(super) done: Done,
    nodes: Vec<Node>,
    /// The nodes of the segments before this one.
    segments: Vec<Vec<Node>>,
    /// What is known of the gradients of values.
    gradients: HashMap<usize, Array>,
    /// The value that a segment's variable was copied from.
    sources: HashMap<usize, usize>,
    next: usize,
}

impl Pass {
    /// Nothing counted so far.
    pub fn new(implementation: Implementation) -> Self {
        let done = Done {
            counter: Counter::default(),
            least_bytes: 0,
            gradients: Vec::new(),
            held: Vec::new(),
            trained: Vec::new(),
        };
        Self {
            implementation,
            done,
            nodes: Vec::new(),
            segments: Vec::new(),
            gradients: HashMap::new(),
            sources: HashMap::new(),
            next: 0,
        }
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        let Done { counter, least_bytes, .. } = &self.done;
        let (launches, bytes) = (counter.launches(), counter.bytes());
        let (own_launches, peak_bytes) = (counter.own(), counter.peak());
        Counts { launches, own_launches, bytes, least_bytes: *least_bytes, peak_bytes }
    }

    /// Launches, and bytes read and written, of each kernel, and of matrix products as `product`, for each kind of layer.
    pub fn by_kernel(&self) -> BTreeMap<(&'static str, String), (u64, u64)> {
        self.done.counter.by_kernel()
    }

    /// Launches over a few numbers.
    pub fn charge_small(&mut self, launches: u64) {
        self.done.counter.charge(launches, 0);
    }

    /// A value without history, in bf16.
    pub fn input(&mut self, dims: &[usize]) -> Result<Value> {
        let array = self.done.counter.allocate(Shape::from(dims), DType::BF16)?;
        Ok(self.value(array, false))
    }

    fn value(&mut self, array: impl Into<Arc<Array>>, tracked: bool) -> Value {
        self.next += 1;
        Value { array: array.into(), id: self.next, tracked }
    }

    /// Begins a segment at these values. candle's graph begins at copies of them.
    pub fn segment(&mut self, inputs: &[Value]) -> Result<Vec<Value>> {
        self.segments.push(std::mem::take(&mut self.nodes));
        if self.implementation == Implementation::Kernels {
            return Ok(inputs.to_vec());
        }
        let copy = |input: &Value| {
            let Value { array, id, .. } = input;
            self.done.counter.charge(1, 2 * array.bytes() as u64);
            let array = self.done.counter.allocate(array.shape.clone(), array.dtype)?;
            self.next += 1;
            self.sources.insert(self.next, *id);
            Ok(Value { array: Arc::new(array), id: self.next, tracked: true })
        };
        inputs.iter().map(copy).collect()
    }

    /// A layer's output. Its operands are kept with it if one of them, or a weight, is tracked.
    pub(super) fn node(
        &mut self,
        operands: &[&Value],
        trains: bool,
        output: impl Into<Arc<Array>>,
        backward: impl FnOnce(&mut Done, &Array, &[bool]) -> Result<Vec<Option<Array>>> + 'static,
    ) -> Value {
        let wanted: Vec<bool> = operands.iter().map(|operand| operand.tracked).collect();
        let tracked = trains || wanted.contains(&true);
        let output = output.into();
        if tracked && self.implementation == Implementation::Composed {
            // The output is copied into the graph.
            self.done.counter.charge(1, 2 * output.bytes() as u64);
        }
        let output = self.value(output, tracked);
        if tracked {
            let backward: Backward = Box::new(move |done, gradient| backward(done, gradient, &wanted));
            let operands = operands.iter().map(|&operand| operand.clone()).collect();
            let layer = self.done.counter.layer();
            self.nodes.push(Node { layer, operands, output: output.id, backward });
        }
        output
    }

    /// Gives a value a gradient: the share of a loss that was computed elsewhere.
    pub fn seed(&mut self, value: &Value) -> Result<()> {
        let share = self.done.counter.allocate(value.array.shape.clone(), value.array.dtype)?;
        self.add_gradient(value.id, share)
    }

    /// The tape moves the first share of a gradient, and sums further ones. candle's graph adds each to zeros.
    fn add_gradient(&mut self, id: usize, share: Array) -> Result<()> {
        let (counter, bytes) = (&self.done.counter, share.bytes() as u64);
        if !self.gradients.contains_key(&id) {
            if self.implementation == Implementation::Kernels {
                self.gradients.insert(id, share);
                return Ok(());
            }
            counter.charge(1, bytes);
            self.gradients.insert(id, counter.allocate(share.shape.clone(), share.dtype)?);
        }
        let sum = match (self.implementation, self.gradients.get(&id)) {
            (Implementation::Kernels, Some(earlier)) => {
                counter.enter("sum");
                cuda::sum(counter, [earlier, &share])?
            }
            _ => {
                counter.charge(1, 3 * bytes);
                counter.allocate(share.shape.clone(), share.dtype)?
            }
        };
        self.gradients.insert(id, sum);
        Ok(())
    }

    /// Differentiates all segments, the last one first. A graph ends when its segment is done.
    pub fn backward(&mut self) -> Result<()> {
        let last = std::mem::take(&mut self.nodes);
        let mut segments = std::mem::take(&mut self.segments);
        segments.push(last);
        while let Some(nodes) = segments.pop() {
            self.differentiate(nodes)?;
            // The gradients of this segment's variables belong to what they were copied from.
            let ended: Vec<usize> =
                self.gradients.keys().copied().filter(|id| self.sources.contains_key(id)).collect();
            for id in ended {
                let (Some(gradient), Some(source)) = (self.gradients.remove(&id), self.sources.remove(&id))
                else {
                    continue;
                };
                match self.gradients.remove(&source) {
                    Some(sum) => {
                        self.done.counter.charge(1, 3 * sum.bytes() as u64);
                        self.gradients.insert(source, sum);
                    }
                    None => drop(self.gradients.insert(source, gradient)),
                }
            }
        }
        self.gradients.clear();
        Ok(())
    }

    fn differentiate(&mut self, nodes: Vec<Node>) -> Result<()> {
        let composes = self.implementation == Implementation::Composed;
        if composes {
            // A scalar for each output that later segments read: a zero, its copy, the sum of such scalars and its gradients.
            let outputs =
                nodes.iter().filter(|node| self.gradients.contains_key(&node.output)).count() as u64;
            self.done.counter.charge(if outputs == 0 { 0 } else { 1 + 7 * outputs }, 0);
        }
        let mut kept = Vec::new();
        for Node { layer, operands, output, backward } in nodes.into_iter().rev() {
            let Some(gradient) = self.gradients.remove(&output) else { continue };
            self.done.counter.enter(layer);
            let shares = backward(&mut self.done, &gradient)?;
            for (operand, share) in operands.iter().zip(shares) {
                if let Some(share) = share {
                    self.add_gradient(operand.id, share)?;
                }
            }
            if composes {
                // candle's graph ends as a whole.
                kept.push(operands);
            }
        }
        Ok(())
    }
}
