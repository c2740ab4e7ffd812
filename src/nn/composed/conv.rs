//! Convolution and its gradients, all three computed with candle's forward convolution: im2col and one matrix product.
//!
//! candle computes the gradient of the input as a transposed convolution with one thread per output. It can also be
//! computed as a plain convolution: of the output's gradient, dilated by the stride, with the flipped kernel. The
//! gradient of the kernel is a convolution in which batch and channels are exchanged.

use candle_core::{Result, Tensor};

use super::Composed;
use crate::nn::accumulation_dtype;

/// Operands: x [batch, in, h, w], weight [out, in, kernel, kernel], bias `[out]`.
pub(in crate::nn) struct Conv2d {
    pub(in crate::nn) stride: usize,
    pub(in crate::nn) padding: usize,
}

impl Composed<3> for Conv2d {
    const NAME: &'static str = "conv2d";

    fn forward(&self, operands: &[Tensor; 3]) -> Result<Tensor> {
        let [x, weight, bias] = operands;
        let weight = weight.to_dtype(x.dtype())?.contiguous()?;
        let y = x.contiguous()?.conv2d(&weight, self.padding, self.stride, 1, 1)?;
        y.broadcast_add(&bias.to_dtype(x.dtype())?.reshape((1, (), 1, 1))?)
    }

    fn backward(
        &self,
        operands: &[Tensor; 3],
        _: &Tensor,
        g: &Tensor,
        wanted: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let [x, weight, _] = operands;
        Ok([
            wanted[0].then(|| self.input_gradient(x, weight, g)).transpose()?,
            wanted[1].then(|| self.weight_gradient(x, weight, g)).transpose()?,
            wanted[2].then(|| g.to_dtype(accumulation_dtype(g.dtype()))?.sum((0, 2, 3))).transpose()?,
        ])
    }
}

impl Conv2d {
    /// g [batch, out, h', w'] -> [batch, in, h, w]
    fn input_gradient(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let kernel = weight.dim(2)?;
        let spread = spread(&spread(g, 2, self.stride)?, 3, self.stride)?;
        // The gradient needs a border of kernel - 1 pixels, minus the padding, which is not part of x.
        let front = kernel as isize - 1 - self.padding as isize;
        let spread = fit(&fit(&spread, 2, front, height + kernel - 1)?, 3, front, width + kernel - 1)?;
        let turned = weight.to_dtype(g.dtype())?.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?;
        spread.contiguous()?.conv2d(&turned.contiguous()?, 0, 1, 1, 1)
    }

    /// [out, in, kernel, kernel]
    fn weight_gradient(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
        let kernel = weight.dim(2)?;
        let (x, g) = (x.transpose(0, 1)?.contiguous()?, g.transpose(0, 1)?.contiguous()?);
        // [in, out, ..]: larger than the kernel if the stride does not use the last pixels.
        let gradient = x.conv2d(&g, self.padding, 1, self.stride, 1)?;
        gradient.narrow(2, 0, kernel)?.narrow(3, 0, kernel)?.transpose(0, 1)?.contiguous()
    }
}

/// Inserts `stride - 1` zeros after each element along `dim`.
fn spread(x: &Tensor, dim: usize, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims[dim] *= stride;
    x.unsqueeze(dim + 1)?.pad_with_zeros(dim + 1, 0, stride - 1)?.reshape(dims)
}

/// Adds `front` zeros at the start (or removes elements), and zeros at the end (or removes elements) up to `length`.
fn fit(x: &Tensor, dim: usize, front: isize, length: usize) -> Result<Tensor> {
    let cut = front.min(0).unsigned_abs();
    let x = x.narrow(dim, cut, x.dim(dim)? - cut)?;
    let front = front.max(0) as usize;
    let kept = x.dim(dim)?.min(length - front);
    x.narrow(dim, 0, kept)?.pad_with_zeros(dim, front, length - front - kept)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn spreading_and_fitting() -> Result<()> {
        let x = Tensor::new(&[1f64, 2.0, 3.0], &Device::Cpu)?;
        assert_eq!(spread(&x, 0, 2)?.to_vec1::<f64>()?, [1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
        assert_eq!(fit(&x, 0, 1, 5)?.to_vec1::<f64>()?, [0.0, 1.0, 2.0, 3.0, 0.0]);
        assert_eq!(fit(&x, 0, -1, 3)?.to_vec1::<f64>()?, [2.0, 3.0, 0.0]);
        assert_eq!(fit(&x, 0, 0, 2)?.to_vec1::<f64>()?, [1.0, 2.0]);
        Ok(())
    }
}
