//! `x W^T + b` and its gradients as three matrix products.

use candle_core::{D, DType, Result, Tensor};

use super::gemm::{Matrix, parallel_product};
use super::reduce::sum_of_rows;
use super::weight::Weight;
use super::{elements, filled};
use crate::nn::operation::{Operation, Output, gradient_of};

/// Operands: x [.., in], weight [out, in], bias [out].
pub(in crate::nn) struct Linear;

impl Operation<3> for Linear {
    fn forward(&self, [x, weight, bias]: &[Tensor; 3]) -> Result<Output> {
        let (rows, input) = sizes(x)?;
        let output = weight.dim(0)?;
        let (x_data, bias) = (elements(x)?, elements(bias)?);
        let x_matrix = Matrix::rows(&x_data, input);
        let (storage, layout) = weight.storage_and_layout();
        let weight = Weight::of(&storage, layout)?;
        let shape = [rows, output, input];
        let y = filled(rows * output, |y| match weight.halves() {
            Some((unit, weight)) => unit.affine(shape, &x_data, weight, &bias, y),
            None => weight.lend_all(|weight| {
                let weight = Matrix::rows(weight, input).transposed();
                parallel_product(shape, x_matrix, weight, Some(&bias), y);
            }),
        });
        let mut shape = x.dims().to_vec();
        *shape.last_mut().expect("BUG: the layer checked the rank") = output;
        Ok(Output::numbers(y, shape))
    }

    fn backward(
        &self,
        [x, weight, bias]: &[Tensor; 3],
        _: &Tensor,
        gradient: &Tensor,
        [of_x, of_weight, of_bias]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let ((rows, input), output) = (sizes(x)?, weight.dim(0)?);
        let wide = weight.to_dtype(DType::F32)?;
        let (x_data, weight_data, g) = (elements(x)?, elements(&wide)?, elements(gradient)?);
        let g_matrix = Matrix::rows(&g, output);
        let x_gradient = gradient_of(x, of_x, || {
            let weight = Matrix::rows(&weight_data, input);
            filled(rows * input, |out| parallel_product([rows, input, output], g_matrix, weight, None, out))
        })?;
        let weight_gradient = gradient_of(weight, of_weight, || {
            let (g, x) = (g_matrix.transposed(), Matrix::rows(&x_data, input));
            filled(output * input, |out| parallel_product([output, input, rows], g, x, None, out))
        })?;
        Ok([x_gradient, weight_gradient, gradient_of(bias, of_bias, || sum_of_rows(&g, output))?])
    }
}

/// Rows of x and their length.
fn sizes(x: &Tensor) -> Result<(usize, usize)> {
    let input = x.dim(D::Minus1)?;
    Ok((x.elem_count() / input, input))
}
