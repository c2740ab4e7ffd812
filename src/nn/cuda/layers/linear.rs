//! Linear layers: products with cuBLAS, and one launch for bias and residual.

use candle_core::{DType, Result, Shape, Tensor};

use super::geglu::{gate, gate_gradient};
use super::weighted::{Weighted, of_bias_if};
use super::{machine_of, output, pointwise};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::channels::Numbers;
use crate::nn::cuda::epilogue::add_bias;
use crate::nn::cuda::machine::{Machine, multiply};
use crate::nn::cuda::product::{Matrix, Product};
use crate::nn::operation::{Operation, Output};

/// `residual + x W^T + b` for x [.., in] and weight [out, in]; bias and residual may be missing.
pub(in crate::nn) fn project(
    machine: &dyn Machine,
    [x, weight]: [&Array; 2],
    bias: Option<&Array>,
    residual: Option<&Array>,
) -> Result<Array> {
    let (out, input) = weight.shape.dims2()?;
    let mut dims = x.shape.dims().to_vec();
    *dims.last_mut().expect("the layer checks the rank") = out;
    let y = machine.allocate(dims.into(), x.dtype)?;
    let product = Product {
        a: Matrix::new(x.pointer),
        b: Matrix::transposed(weight.pointer),
        c: y.pointer,
        sizes: [x.rows(), out, input],
        operands: x.numbers()?,
        result: x.numbers()?,
        adds: false,
    };
    multiply(machine, &product)?;
    add_bias(machine, &y, bias, residual)?;
    Ok(y)
}

/// The gradient of x, which has the given shape.
pub(in crate::nn) fn input_gradient(
    machine: &dyn Machine,
    [gradient, weight]: [&Array; 2],
    x: &Shape,
) -> Result<Array> {
    let (out, input) = weight.shape.dims2()?;
    let dx = machine.allocate(x.clone(), gradient.dtype)?;
    let product = Product {
        a: Matrix::new(gradient.pointer),
        b: Matrix::new(weight.pointer),
        c: dx.pointer,
        sizes: [gradient.rows(), input, out],
        operands: gradient.numbers()?,
        result: gradient.numbers()?,
        adds: false,
    };
    multiply(machine, &product)?;
    Ok(dx)
}

/// The gradient of the weight, [out, in] in f32.
pub(in crate::nn) fn weight_gradient(machine: &dyn Machine, [gradient, x]: [&Array; 2]) -> Result<Array> {
    let (out, input) = (gradient.width(), x.width());
    let dw = machine.allocate(Shape::from((out, input)), DType::F32)?;
    let product = Product {
        a: Matrix::transposed(gradient.pointer),
        b: Matrix::new(x.pointer),
        c: dw.pointer,
        sizes: [out, input, gradient.rows()],
        operands: gradient.numbers()?,
        result: Numbers::F32,
        adds: false,
    };
    multiply(machine, &product)?;
    Ok(dw)
}

/// Operands: x [.., in], weight [out, in] and, in the second form, bias `[out]`.
pub(in crate::nn) struct Linear {
    /// The weight in the type of x, if there is a copy of it.
    pub(in crate::nn) copy: Option<Tensor>,
}

impl Linear {
    fn weight(&self, weight: &Tensor, dtype: DType) -> Result<Array> {
        match &self.copy {
            Some(copy) => Array::of(copy),
            None => Array::of(&weight.to_dtype(dtype)?),
        }
    }
}

impl Weighted for Linear {
    fn forward(&self, [x, weight]: [&Tensor; 2], bias: Option<&Tensor>) -> Result<Output> {
        let (weight, bias) = (self.weight(weight, x.dtype())?, bias.map(pointwise).transpose()?);
        output(project(&*machine_of(x)?, [&Array::of(x)?, &weight], bias.as_ref(), None)?)
    }

    fn gradients(
        &self,
        [x, weight]: [&Tensor; 2],
        gradient: &Array,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let machine = machine_of(x)?;
        let of_x = || {
            let weight = self.weight(weight, x.dtype())?;
            input_gradient(&*machine, [gradient, &weight], x.shape())?.into_tensor()
        };
        let of_weight = || weight_gradient(&*machine, [gradient, &Array::of(x)?])?.into_tensor();
        Ok([wanted[0].then(of_x).transpose()?, wanted[1].then(of_weight).transpose()?])
    }
}

/// Operands: x [.., in], weight [out, in], bias `[out]`, and residual [.., out], which the result is added to.
pub(in crate::nn) struct Onto(pub(in crate::nn) Linear);

impl Operation<4> for Onto {
    fn forward(&self, [x, weight, bias, residual]: &[Tensor; 4]) -> Result<Output> {
        let (weight, bias) = (self.0.weight(weight, x.dtype())?, pointwise(bias)?);
        let residual = Array::of(residual)?;
        output(project(&*machine_of(x)?, [&Array::of(x)?, &weight], Some(&bias), Some(&residual))?)
    }

    fn backward(
        &self,
        [x, weight, bias, _]: &[Tensor; 4],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias, of_residual]: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        let given = Array::of(gradient)?;
        let [dx, dw] = self.0.gradients([x, weight], &given, [of_x, of_weight])?;
        Ok([dx, dw, of_bias_if(of_bias, &given, bias)?, of_residual.then(|| gradient.clone())])
    }
}

/// Operands: x [.., 2 in], weight [out, in], bias `[out]`, and residual [.., out], to which the linear layer of the gated GELU of x is
/// added. What the GELU gives is computed again in backward instead of kept.
pub(in crate::nn) struct GatedOnto(pub(in crate::nn) Linear);

impl Operation<4> for GatedOnto {
    fn forward(&self, [x, weight, bias, residual]: &[Tensor; 4]) -> Result<Output> {
        let machine = machine_of(x)?;
        let (weight, bias) = (self.0.weight(weight, x.dtype())?, pointwise(bias)?);
        let gated = gate(&*machine, &Array::of(x)?)?;
        output(project(&*machine, [&gated, &weight], Some(&bias), Some(&Array::of(residual)?))?)
    }

    fn backward(
        &self,
        [x, weight, bias, _]: &[Tensor; 4],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias, of_residual]: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        let (machine, x, g) = (machine_of(x)?, Array::of(x)?, Array::of(gradient)?);
        let dw = || weight_gradient(&*machine, [&g, &gate(&*machine, &x)?])?.into_tensor();
        let dw = of_weight.then(dw).transpose()?;
        let db = of_bias_if(of_bias, &g, bias)?;
        let dx = || {
            let weight = self.0.weight(weight, gradient.dtype())?;
            gated_gradient(&*machine, [&g, &weight], &x)?.into_tensor()
        };
        Ok([of_x.then(dx).transpose()?, dw, db, of_residual.then(|| gradient.clone())])
    }
}

/// The gradient of x through a linear layer and the gated GELU before it.
pub(in crate::nn) fn gated_gradient(
    machine: &dyn Machine,
    [gradient, weight]: [&Array; 2],
    x: &Array,
) -> Result<Array> {
    let mut dims = x.shape.dims().to_vec();
    *dims.last_mut().expect("the layer checks the rank") /= 2;
    let of_gated = input_gradient(machine, [gradient, weight], &dims.into())?;
    gate_gradient(machine, x, &of_gated)
}
