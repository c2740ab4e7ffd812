//! The sum of two tensors, for residuals and for gradients.

use candle_core::{Result, Tensor, bail};

use super::operation::{self, Operation, Output};
use super::route::{self, Layer, Route};
use super::{cpu, cuda};

/// `a + b`, of the same shape and type.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("add: {:?} and {:?} differ in shape", a.dims(), b.dims())
    }
    operation::apply(Sum(route::of(Layer::Rows, &[a, b], &[])), [a, b])
}

struct Sum(Route);

impl Operation<2> for Sum {
    fn forward(&self, [a, b]: &[Tensor; 2]) -> Result<Output> {
        match self.0 {
            Route::Cpu => cpu::sum::sum(a, b),
            Route::Cuda => cuda::add(a, b),
            Route::Composed => Ok(Output::Tensor((a + b)?)),
        }
    }

    fn backward(
        &self,
        _: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        Ok(wanted.map(|wanted| wanted.then(|| gradient.clone())))
    }
}
