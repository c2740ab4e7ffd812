//! `x W^T + b` and its gradients as three matrix products.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};

use super::gemm::{Matrix, parallel_product};
use super::reduce::sum_of_rows;
use super::weight::Weight;
use super::{elements, filled, for_tracked, operand};

/// Operands: x [rows, in], weight [out, in], bias [out].
pub(in crate::nn) struct Linear;

const NAME: &str = "linear";

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, input), (output, _)) = (x_layout.shape().dims2()?, weight_layout.shape().dims2()?);
        let x = Matrix::rows(operand(NAME, x, x_layout)?, input);
        let bias = Some(operand(NAME, bias, bias_layout)?);
        let weight = Weight::of(NAME, weight, weight_layout)?;
        let y = filled(rows * output, |y| {
            weight.lend_all(|weight| {
                let weight = Matrix::rows(weight, input).transposed();
                parallel_product([rows, output, input], x, weight, bias, y);
            })
        });
        Ok((CpuStorage::F32(y), (rows, output).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let ((rows, input), output) = (x.dims2()?, weight.dim(0)?);
        let wide = weight.to_dtype(DType::F32)?;
        let (x_data, weight_data, g) = (elements(x)?, elements(&wide)?, elements(&gradient)?);
        let g_matrix = Matrix::rows(&g, output);
        let x_gradient = for_tracked(x, || {
            let weight = Matrix::rows(&weight_data, input);
            filled(rows * input, |out| parallel_product([rows, input, output], g_matrix, weight, None, out))
        })?;
        let weight_gradient = for_tracked(weight, || {
            let (g, x) = (g_matrix.transposed(), Matrix::rows(&x_data, input));
            filled(output * input, |out| parallel_product([output, input, rows], g, x, None, out))
        })?;
        Ok((x_gradient, weight_gradient, for_tracked(bias, || sum_of_rows(&g, output))?))
    }
}
