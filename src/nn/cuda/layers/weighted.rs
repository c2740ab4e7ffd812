//! Layers with a weight and perhaps a bias, as operations of two or three operands.

use candle_core::{Result, Tensor};

use super::machine_of;
use crate::nn::cuda::array::Array;
use crate::nn::cuda::epilogue::bias_gradient;
use crate::nn::operation::{Operation, Output};

/// A layer with the operands x and weight and, if it has one, bias `[out]`.
pub(super) trait Weighted: 'static {
    fn forward(&self, operands: [&Tensor; 2], bias: Option<&Tensor>) -> Result<Output>;

    /// The gradients of x and weight that are wanted.
    fn gradients(
        &self,
        operands: [&Tensor; 2],
        gradient: &Array,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]>;
}

/// The gradient of a bias, if it is wanted.
pub(super) fn of_bias_if(wanted: bool, gradient: &Array, bias: &Tensor) -> Result<Option<Tensor>> {
    let made = || bias_gradient(&*machine_of(bias)?, gradient, bias.shape())?.into_tensor();
    wanted.then(made).transpose()
}

impl<Layer: Weighted> Operation<2> for Layer {
    fn forward(&self, [x, weight]: &[Tensor; 2]) -> Result<Output> {
        Weighted::forward(self, [x, weight], None)
    }

    fn backward(
        &self,
        [x, weight]: &[Tensor; 2],
        _: &Tensor,
        gradient: &Tensor,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        self.gradients([x, weight], &Array::of(gradient)?, wanted)
    }
}

impl<Layer: Weighted> Operation<3> for Layer {
    fn forward(&self, [x, weight, bias]: &[Tensor; 3]) -> Result<Output> {
        Weighted::forward(self, [x, weight], Some(bias))
    }

    fn backward(
        &self,
        [x, weight, bias]: &[Tensor; 3],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let gradient = Array::of(gradient)?;
        let [dx, dw] = self.gradients([x, weight], &gradient, [of_x, of_weight])?;
        Ok([dx, dw, of_bias_if(of_bias, &gradient, bias)?])
    }
}
