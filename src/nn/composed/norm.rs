//! Normalisation of rows: the tokens of a layer norm or the groups of a group norm, optionally followed by a SiLU.

use candle_core::{D, DType, Result, Tensor};

use crate::nn::accumulation_dtype;
use crate::nn::operation::{Operation, Output};

/// Operands: x, weight and bias `[channels]`.
pub(in crate::nn) struct Norm {
    /// Groups of channels in dimension 1; `None` normalises the last dimension, whose elements are the channels.
    pub(in crate::nn) groups: Option<usize>,
    pub(in crate::nn) eps: f64,
    pub(in crate::nn) silu: bool,
}

/// Intermediate results.
struct Standard {
    /// (x - mean) scale, [.., row]
    normal: Tensor,
    /// 1 / sqrt(variance + eps), [.., 1]
    scale: Tensor,
}

impl Norm {
    /// x as rows to be normalised, in the accumulation type.
    fn rows(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(accumulation_dtype(x.dtype()))?;
        match self.groups {
            Some(groups) => wide.reshape((x.dim(0)?, groups, ())),
            None => wide.reshape(((), x.dim(D::Minus1)?)),
        }
    }

    fn standardise(&self, x: &Tensor) -> Result<Standard> {
        let rows = self.rows(x)?;
        let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (variance + self.eps)?.sqrt()?.recip()?;
        Ok(Standard { normal: centred.broadcast_mul(&scale)?, scale })
    }

    /// The shape in which the channels are dimension 1 of three, or the last of two.
    fn by_channel(&self, x: &Tensor, channels: usize) -> Result<Tensor> {
        match self.groups {
            Some(_) => x.reshape((x.dim(0)?, channels, ())),
            None => x.reshape(((), channels)),
        }
    }

    /// Reshapes a per-channel tensor for broadcasting.
    fn per_channel(&self, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
        let tensor = tensor.to_dtype(dtype)?;
        if self.groups.is_some() { tensor.reshape((1, (), 1)) } else { tensor.unsqueeze(0) }
    }

    /// The sums over all dimensions except the channels.
    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        if self.groups.is_some() { x.sum((0, 2)) } else { x.sum(0) }
    }
}

impl Operation<3> for Norm {
    fn forward(&self, operands: &[Tensor; 3]) -> Result<Output> {
        let [x, weight, bias] = operands;
        let normal = self.by_channel(&self.standardise(x)?.normal, weight.dim(0)?)?;
        let weighted = normal.broadcast_mul(&self.per_channel(weight, normal.dtype())?)?;
        let y = weighted.broadcast_add(&self.per_channel(bias, normal.dtype())?)?;
        let y = if self.silu { y.silu()? } else { y };
        Ok(Output::Tensor(y.reshape(x.shape())?.to_dtype(x.dtype())?))
    }

    /// With n = (x - mean) scale, y = w n + b and g = dL/dy: dL/dw = sum g n, dL/db = sum g, and
    /// dL/dx = scale (w g - mean(w g) - n mean(w g n)).
    fn backward(
        &self,
        operands: &[Tensor; 3],
        _: &Tensor,
        g: &Tensor,
        wanted: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let [x, weight, bias] = operands;
        let Standard { normal, scale } = self.standardise(x)?;
        let channels = self.by_channel(&normal, weight.dim(0)?)?;
        let dtype = normal.dtype();
        let weight = self.per_channel(weight, dtype)?;
        let mut g = self.by_channel(&g.to_dtype(dtype)?, weight.elem_count())?;
        if self.silu {
            let y = channels.broadcast_mul(&weight)?.broadcast_add(&self.per_channel(bias, dtype)?)?;
            let s = ((y.neg()?.exp()? + 1.0)?).recip()?;
            // silu'(y) = s (1 + y (1 - s)), where s is the logistic function of y.
            g = (g * (&s * ((y * (1.0 - &s)?)? + 1.0)?)?)?;
        }
        let of_x = || -> Result<Tensor> {
            let weighted = g.broadcast_mul(&weight)?.reshape(normal.shape())?;
            let mean = weighted.mean_keepdim(D::Minus1)?;
            let along = normal.broadcast_mul(&(&weighted * &normal)?.mean_keepdim(D::Minus1)?)?;
            (weighted.broadcast_sub(&mean)? - along)?.broadcast_mul(&scale)?.reshape(x.shape())
        };
        Ok([
            wanted[0].then(of_x).transpose()?,
            wanted[1].then(|| self.sum(&(&g * &channels)?)).transpose()?,
            wanted[2].then(|| self.sum(&g)).transpose()?,
        ])
    }
}
