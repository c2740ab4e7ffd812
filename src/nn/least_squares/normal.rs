//! Normal equations of a linear layer, summed over calibration points in double precision.
//!
//! `z` are the features that the layer reads at one position with a 1 for the bias, `e` what its output lacks. The change
//! `D` of its weights that minimises `sum |D z - e|^2` solves `D (sum z z^T) = sum e z^T`. The sums need no memory that grows
//! with the points, and they give the error of any `D` without another pass.

use candle_core::{DType, Device, Result, Tensor};

use super::blocks::{BLOCK, Rows, Triangle};

/// The sums over some points.
pub struct Normal {
    /// `sum z z^T`.
    pub(super) features: Triangle,
    /// `sum z e^T`, [features, outputs].
    pub(super) products: Rows,
    /// `sum |e|^2`.
    pub energy: f64,
}

impl Normal {
    /// The sums over no point, for this many features without the bias.
    pub fn new(features: usize, outputs: usize) -> Result<Self> {
        let size = features + 1;
        Ok(Self { features: Triangle::zeros(size)?, products: Rows::zeros(size, outputs)?, energy: 0.0 })
    }

    /// Bytes that the sums of a layer take.
    pub fn bytes(features: usize, outputs: usize) -> u64 {
        let size = (features + 1).next_multiple_of(BLOCK) as u64;
        8 * size * (size / 2 + outputs as u64)
    }

    /// Adds points: `features` are pixels [b, c, h, w] or tokens [b, n, c] that a kernel of this size reads, `lack` what
    /// its output lacks, of the same form.
    pub fn add(&mut self, features: &Tensor, kernel: usize, lack: &Tensor) -> Result<()> {
        for sample in 0..features.dim(0)? {
            let double =
                |tensor: &Tensor| tensor.narrow(0, sample, 1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64);
            let (z, e) = (columns(&double(features)?, kernel)?, columns(&double(lack)?, 1)?);
            let ones = Tensor::ones((1, z.dim(1)?), DType::F64, &Device::Cpu)?;
            let z = Rows::of(&Tensor::cat(&[z, ones], 0)?)?;
            self.features.add_square(&z)?;
            self.products.add_product(&z, &e.t()?.contiguous()?)?;
            self.energy += e.sqr()?.sum_all()?.to_scalar::<f64>()?;
        }
        Ok(())
    }

    /// Features without the bias, and outputs.
    pub fn sizes(&self) -> Result<(usize, usize)> {
        let (size, outputs) = self.products.sizes()?;
        Ok((size - 1, outputs))
    }

    /// How many positions were added.
    pub fn positions(&self) -> Result<f64> {
        Ok(self.features.diagonal()?.last().copied().unwrap_or(0.0))
    }

    /// `sum |D z - e|^2` for a change, given as its transpose.
    pub(super) fn error(&self, change: &Rows) -> Result<f64> {
        Ok(self.energy - 2.0 * change.dot(&self.products)? + self.features.form(change)?)
    }
}

/// What a kernel of this size reads at each position of one sample: pixels [1, c, h, w] -> [c * kernel^2, h * w], in the
/// order of a weight [out, c, kernel, kernel]; tokens [1, n, c] -> [c, n].
fn columns(x: &Tensor, kernel: usize) -> Result<Tensor> {
    if let Ok((_, positions, channels)) = x.dims3() {
        return x.reshape((positions, channels))?.t()?.contiguous();
    }
    let (_, channels, height, width) = x.dims4()?;
    if kernel == 1 {
        return x.reshape((channels, height * width));
    }
    let border = kernel / 2;
    let padded = x.pad_with_zeros(2, border, border)?.pad_with_zeros(3, border, border)?;
    let mut shifted = Vec::with_capacity(kernel * kernel);
    for (down, right) in (0..kernel).flat_map(|down| (0..kernel).map(move |right| (down, right))) {
        shifted.push(padded.narrow(2, down, height)?.narrow(3, right, width)?);
    }
    Tensor::stack(&shifted, 2)?.reshape((channels * kernel * kernel, height * width))
}
