//! Convolution and its gradients, all three computed with candle's forward convolution: im2col and one matrix product.
//!
//! im2col copies each input pixel once per kernel position. On CUDA, candle counts these columns in 32 bits and leaves what
//! lies beyond uninitialised, without an error. So a convolution is cut into pieces: samples, and rows of the output where
//! one sample is too much.
//!
//! candle computes the gradient of the input as a transposed convolution with one thread per output. It can also be
//! computed as a plain convolution: of the output's gradient, dilated by the stride, with the flipped kernel. The
//! gradient of the kernel is a convolution in which batch and channels are exchanged.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::nn::accumulation_dtype;
use crate::nn::operation::{Operation, Output};

/// The largest number of elements of the columns of one piece: 1 GiB in f32, far below 2^32. The autoencoder of Stable
/// Diffusion has 2^29 for one picture of 512x512, that of SDXL 2^31 for one of 1024x1024.
const MOST_COLUMNS: usize = 1 << 28;

/// Operands: x [batch, in, h, w], weight [out, in, kernel, kernel], bias `[out]`.
pub(in crate::nn) struct Conv2d {
    stride: usize,
    padding: usize,
    most_columns: usize,
}

impl Operation<3> for Conv2d {
    fn forward(&self, operands: &[Tensor; 3]) -> Result<Output> {
        let [x, weight, bias] = operands;
        let weight = weight.to_dtype(x.dtype())?.contiguous()?;
        let y = self.convolve(x, &weight, self.padding, self.stride)?;
        Ok(Output::Tensor(y.broadcast_add(&bias.to_dtype(x.dtype())?.reshape((1, (), 1, 1))?)?))
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
    pub(in crate::nn) fn new(stride: usize, padding: usize) -> Self {
        Self { stride, padding, most_columns: MOST_COLUMNS }
    }

    /// g [batch, out, h', w'] -> [batch, in, h, w]
    fn input_gradient(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let kernel = weight.dim(2)?;
        let spread = spread(&spread(g, 2, self.stride)?, 3, self.stride)?;
        // The gradient needs a border of kernel - 1 pixels, minus the padding, which is not part of x.
        let front = kernel as isize - 1 - self.padding as isize;
        let spread = fit(&fit(&spread, 2, front, height + kernel - 1)?, 3, front, width + kernel - 1)?;
        let turned = weight.to_dtype(g.dtype())?.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?;
        self.convolve(&spread, &turned.contiguous()?, 0, 1)
    }

    /// [out, in, kernel, kernel]
    fn weight_gradient(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<Tensor> {
        let kernel = weight.dim(2)?;
        let (batch, channels, _, _) = x.dims4()?;
        let (_, _, rows, width) = g.dims4()?;
        // The result is larger than the kernel if the stride does not use the last pixels.
        let side = kernel + self.stride - 1;
        let cut = Cut::new(batch, rows, width * channels * side * side, self.most_columns);
        let share = |x: Tensor, g: Tensor, padding: usize| {
            let (x, g) = (x.transpose(0, 1)?.contiguous()?, g.transpose(0, 1)?.contiguous()?);
            let gradient = x.conv2d(&g, padding, 1, self.stride, 1)?; // [in, out, ..]
            gradient.narrow(2, 0, kernel)?.narrow(3, 0, kernel)?.transpose(0, 1)?.contiguous()
        };
        if cut.is_whole() {
            return share(x.clone(), g.clone(), self.padding);
        }
        let mut sum: Option<Tensor> = None;
        for (samples, rows) in cut.pieces() {
            let g = narrow(&narrow(g, 0, &samples)?, 2, &rows)?;
            let (x, padding) = cut.input(x, samples, rows, [kernel, self.stride, self.padding])?;
            let share = share(x, g, padding)?;
            let share = share.to_dtype(accumulation_dtype(share.dtype()))?;
            sum = Some(match sum {
                Some(sum) => (sum + share)?,
                None => share,
            });
        }
        Ok(sum.expect("a batch has at least one sample"))
    }

    /// candle's convolution, in pieces.
    fn convolve(&self, x: &Tensor, weight: &Tensor, padding: usize, stride: usize) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let kernel = weight.dim(2)?;
        let outputs = |length: usize| (length + 2 * padding - kernel) / stride + 1;
        let (rows, of_row) = (outputs(height), outputs(width) * channels * kernel * kernel);
        let cut = Cut::new(batch, rows, of_row, self.most_columns);
        if cut.is_whole() {
            return x.contiguous()?.conv2d(weight, padding, stride, 1, 1);
        }
        let mut samples: Vec<Vec<Tensor>> = Vec::new();
        for (range, rows) in cut.pieces() {
            let is_first = rows.start == 0;
            let (x, padding) = cut.input(x, range, rows, [kernel, stride, padding])?;
            let y = x.contiguous()?.conv2d(weight, padding, stride, 1, 1)?;
            match samples.last_mut().filter(|_| !is_first) {
                Some(sample) => sample.push(y),
                None => samples.push(vec![y]),
            }
        }
        let samples: Vec<Tensor> = samples.iter().map(|rows| Tensor::cat(rows, 2)).collect::<Result<_>>()?;
        Tensor::cat(&samples, 0)
    }
}

/// How a convolution is cut: into several samples each, or one sample into several rows of the output each.
struct Cut {
    batch: usize,
    rows: usize,
    samples_at_once: usize,
    rows_at_once: usize,
}

impl Cut {
    /// `of_row` is the number of elements of the columns of one row of the output of one sample.
    fn new(batch: usize, rows: usize, of_row: usize, most: usize) -> Self {
        let rows_at_once = (most / of_row.max(1)).clamp(1, rows.max(1));
        let samples_at_once = (most / (rows * of_row).max(1)).clamp(1, batch.max(1));
        Self { batch, rows, samples_at_once, rows_at_once }
    }

    fn is_whole(&self) -> bool {
        self.samples_at_once >= self.batch && self.rows_at_once >= self.rows
    }

    /// The samples and the rows of each piece.
    fn pieces(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let ranges = |length: usize, step: usize| {
            (0..length).step_by(step).map(move |start| start..length.min(start + step))
        };
        ranges(self.batch, self.samples_at_once).flat_map(move |samples| {
            ranges(self.rows, self.rows_at_once).map(move |rows| (samples.clone(), rows))
        })
    }

    /// The part of the input that a piece reads, and the padding that it still needs.
    fn input(
        &self,
        x: &Tensor,
        samples: Range<usize>,
        rows: Range<usize>,
        [kernel, stride, padding]: [usize; 3],
    ) -> Result<(Tensor, usize)> {
        let x = narrow(x, 0, &samples)?;
        if rows.len() == self.rows {
            return Ok((x, padding));
        }
        let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
        Ok((padded.narrow(2, rows.start * stride, (rows.len() - 1) * stride + kernel)?, 0))
    }
}

fn narrow(x: &Tensor, dim: usize, range: &Range<usize>) -> Result<Tensor> {
    x.narrow(dim, range.start, range.len())
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
    use crate::nn::composed::apply;

    #[test]
    fn spreading_and_fitting() -> Result<()> {
        let x = Tensor::new(&[1f64, 2.0, 3.0], &Device::Cpu)?;
        assert_eq!(spread(&x, 0, 2)?.to_vec1::<f64>()?, [1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
        assert_eq!(fit(&x, 0, 1, 5)?.to_vec1::<f64>()?, [0.0, 1.0, 2.0, 3.0, 0.0]);
        assert_eq!(fit(&x, 0, -1, 3)?.to_vec1::<f64>()?, [2.0, 3.0, 0.0]);
        assert_eq!(fit(&x, 0, 0, 2)?.to_vec1::<f64>()?, [1.0, 2.0]);
        Ok(())
    }
    /// The output and the gradients, with a limit of the columns.
    fn passes(
        operands: &[Tensor; 3],
        stride: usize,
        padding: usize,
        most_columns: usize,
    ) -> Result<Vec<Tensor>> {
        let op = || Conv2d { stride, padding, most_columns };
        let output = apply("conv2d", op(), operands.each_ref())?;
        let gradient = (output.sqr()? + 1.0)?;
        let gradients = op().backward(operands, &output, &gradient, [true; 3])?;
        Ok([output].into_iter().chain(gradients.into_iter().flatten()).collect())
    }

    #[test]
    fn pieces_give_what_the_whole_gives() -> Result<()> {
        let numbers = |count: usize, factor: f64| (0..count).map(move |i| (i as f64 * factor).sin());
        let tensor = |dims: &[usize], factor| {
            Tensor::from_iter(numbers(dims.iter().product(), factor), &Device::Cpu)?.reshape(dims)
        };
        for (kernel, stride, padding, side) in
            [(3, 1, 1, 6), (3, 2, 1, 7), (3, 2, 0, 8), (1, 1, 0, 5), (4, 4, 0, 8)]
        {
            let operands = [
                tensor(&[5, 3, side, side + 1], 0.7)?,
                tensor(&[2, 3, kernel, kernel], 1.3)?,
                tensor(&[2], 0.9)?,
            ];
            let whole = passes(&operands, stride, padding, usize::MAX)?;
            let of_sample = whole[0].dim(2)? * whole[0].dim(3)? * 3 * kernel * kernel;
            // Two samples, one sample, about two rows, less than one row.
            for most in [2 * of_sample, of_sample, 2 * of_sample / whole[0].dim(2)?, 1] {
                for (place, (cut, whole)) in
                    passes(&operands, stride, padding, most)?.iter().zip(&whole).enumerate()
                {
                    assert_eq!(cut.dims(), whole.dims());
                    let off = (cut - whole)?.abs()?.max_all()?.to_scalar::<f64>()?;
                    assert!(off < 1e-12, "{kernel} {stride} {padding}, most {most}, result {place}: {off}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn no_piece_has_more_columns_than_the_limit() {
        // The decoder of SDXL's autoencoder at 1024x1024, batch 2: 256 channels, 3x3.
        let of_row = 1024 * 256 * 9;
        let cut = Cut::new(2, 1024, of_row, MOST_COLUMNS);
        assert!(2 * 1024 * of_row > u32::MAX as usize && !cut.is_whole());
        let pieces: Vec<_> = cut.pieces().collect();
        assert!(pieces.iter().all(|(samples, rows)| samples.len() * rows.len() * of_row <= MOST_COLUMNS));
        assert_eq!(pieces.iter().map(|(samples, rows)| samples.len() * rows.len()).sum::<usize>(), 2 * 1024);
    }
}
