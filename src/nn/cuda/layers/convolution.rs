//! Convolution of images with their channels last: columns in slabs, and a product with each.

use std::ops::Range;

use candle_core::{DType, Result, Shape, Tensor};

use super::weighted::Weighted;
use super::{machine_of, output, pointwise};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::channels::Numbers;
use crate::nn::cuda::columns::Columns;
use crate::nn::cuda::epilogue::add_bias;
use crate::nn::cuda::launch::Launch;
use crate::nn::cuda::machine::{Machine, multiply};
use crate::nn::cuda::product::{Matrix, Product};
use crate::nn::operation::Output;

/// The largest number of elements of the columns of one slab: 256 MiB in bf16.
const MOST_COLUMNS: usize = 1 << 27;

/// The sizes of a convolution: x [batch, height, width, channels], weight [out, channels, kernel, kernel].
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Convolution {
    pub(in crate::nn) columns: Columns,
    pub(in crate::nn) out: usize,
    pub(in crate::nn) most_columns: usize,
}

/// [outer, b, a] of an array [outer, a, b], in another type.
fn swap_inner(
    machine: &dyn Machine,
    from: &Array,
    [outer, a, b]: [usize; 3],
    to: (Shape, DType),
) -> Result<Array> {
    let (shape, dtype) = to;
    let result = machine.allocate(shape, dtype)?;
    let kernel = format!("swap_inner_{}_{}", from.numbers()?.word(), result.numbers()?.word());
    Launch::new(kernel, [outer, 1, 1], 256)
        .moving(from.bytes() + result.bytes())
        .pointers([from.pointer, result.pointer])
        .sizes([a, b])
        .run(machine)?;
    Ok(result)
}

impl Convolution {
    pub(in crate::nn) fn new(x: &Array, weight: &Shape, conv: &Conv2d) -> Result<Self> {
        let ((batch, height, width, channels), (out, _, kernel, _)) = (x.shape.dims4()?, weight.dims4()?);
        let Conv2d { stride, padding, enlarged, most_columns } = *conv;
        let numbers = x.numbers()?;
        let columns = Columns { numbers, batch, height, width, channels, kernel, stride, padding, enlarged };
        Ok(Self { columns, out, most_columns })
    }

    fn taps(&self) -> usize {
        self.columns.kernel * self.columns.kernel
    }

    /// Whether the rows of the columns are the pixels of x.
    fn is_linear(&self) -> bool {
        let Columns { kernel, stride, padding, enlarged, .. } = self.columns;
        [kernel, stride, padding] == [1, 1, 0] && !enlarged
    }

    fn slabs(&self) -> Vec<Range<usize>> {
        let [height, width] = self.columns.output();
        let all = 0..self.columns.batch * height * width;
        if self.is_linear() { vec![all] } else { self.columns.slabs(self.most_columns).collect() }
    }

    /// The weight as the matrix [out, kernel * kernel * channels] by which columns are multiplied, in the type of x.
    pub(in crate::nn) fn matrix(&self, machine: &dyn Machine, weight: &Array) -> Result<Array> {
        let dtype = self.columns.numbers.dtype();
        let inner = [self.out, self.columns.channels, self.taps()];
        swap_inner(machine, weight, inner, (Shape::from((self.out, self.columns.row())), dtype))
    }

    /// The columns of a slab: new ones, or the pixels of x.
    fn columns(&self, machine: &dyn Machine, x: &Array, rows: &Range<usize>) -> Result<Option<Array>> {
        if self.is_linear() {
            return Ok(None);
        }
        let columns = self.room(machine, x.dtype, rows)?;
        self.columns.forward(machine, x.pointer, columns.pointer, rows)?;
        Ok(Some(columns))
    }

    /// Room for the columns of a slab.
    fn room(&self, machine: &dyn Machine, dtype: DType, rows: &Range<usize>) -> Result<Array> {
        machine.allocate(Shape::from((rows.len(), self.columns.row())), dtype)
    }

    /// y [batch, h', w', out]
    pub(in crate::nn) fn forward(
        &self,
        machine: &dyn Machine,
        [x, matrix]: [&Array; 2],
        bias: Option<&Array>,
    ) -> Result<Array> {
        let [height, width] = self.columns.output();
        let y = machine.allocate(Shape::from((self.columns.batch, height, width, self.out)), x.dtype)?;
        for rows in self.slabs() {
            let columns = self.columns(machine, x, &rows)?;
            let product = Product {
                a: Matrix::new(columns.as_ref().unwrap_or(x).pointer),
                b: Matrix::transposed(matrix.pointer),
                c: y.at_row(rows.start),
                sizes: [rows.len(), self.out, self.columns.row()],
                operands: self.columns.numbers,
                result: self.columns.numbers,
                adds: false,
            };
            multiply(machine, &product)?;
        }
        add_bias(machine, &y, bias, None)?;
        Ok(y)
    }

    /// The gradient of x, which has the given shape.
    pub(in crate::nn) fn input_gradient(
        &self,
        machine: &dyn Machine,
        [gradient, matrix]: [&Array; 2],
        x: &Shape,
    ) -> Result<Array> {
        let dx = machine.allocate(x.clone(), gradient.dtype)?;
        for rows in self.slabs() {
            let columns = match self.is_linear() {
                true => None,
                false => Some(self.room(machine, gradient.dtype, &rows)?),
            };
            let product = Product {
                a: Matrix::new(gradient.at_row(rows.start)),
                b: Matrix::new(matrix.pointer),
                c: columns.as_ref().unwrap_or(&dx).pointer,
                sizes: [rows.len(), self.columns.row(), self.out],
                operands: self.columns.numbers,
                result: self.columns.numbers,
                adds: false,
            };
            multiply(machine, &product)?;
            if let Some(columns) = columns {
                self.columns.backward(machine, columns.pointer, dx.pointer, &rows)?;
            }
        }
        Ok(dx)
    }

    /// The gradient of the weight, [out, channels, kernel, kernel] in f32.
    pub(in crate::nn) fn weight_gradient(
        &self,
        machine: &dyn Machine,
        [gradient, x]: [&Array; 2],
    ) -> Result<Array> {
        let Columns { kernel, channels, .. } = self.columns;
        let shape = Shape::from((self.out, channels, kernel, kernel));
        let sum = machine.allocate(shape.clone(), DType::F32)?;
        for rows in self.slabs() {
            let columns = self.columns(machine, x, &rows)?;
            let product = Product {
                a: Matrix::transposed(gradient.at_row(rows.start)),
                b: Matrix::new(columns.as_ref().unwrap_or(x).pointer),
                c: sum.pointer,
                sizes: [self.out, self.columns.row(), rows.len()],
                operands: self.columns.numbers,
                result: Numbers::F32,
                adds: rows.start > 0,
            };
            multiply(machine, &product)?;
        }
        match self.taps() {
            1 => Ok(sum),
            taps => swap_inner(machine, &sum, [self.out, taps, channels], (shape, DType::F32)),
        }
    }
}

/// Operands: x [batch, h, w, channels], weight [out, channels, kernel, kernel] and, in the second form, a bias, `[out]` or one for
/// each sample, [batch, out].
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Conv2d {
    stride: usize,
    padding: usize,
    /// Whether x is first enlarged twofold by repeating pixels.
    enlarged: bool,
    most_columns: usize,
}

impl Conv2d {
    pub(in crate::nn) fn new(stride: usize, padding: usize, enlarged: bool) -> Self {
        Self { stride, padding, enlarged, most_columns: MOST_COLUMNS }
    }

    /// With slabs of at most so many elements.
    #[cfg(test)]
    pub(in crate::nn) fn by(self, most_columns: usize) -> Self {
        Self { most_columns, ..self }
    }
}

impl Weighted for Conv2d {
    fn forward(&self, [x, weight]: [&Tensor; 2], bias: Option<&Tensor>) -> Result<Output> {
        let (machine, x) = (machine_of(x)?, Array::of(x)?);
        let shape = Convolution::new(&x, weight.shape(), self)?;
        let bias = bias.map(pointwise).transpose()?;
        let matrix = shape.matrix(&*machine, &Array::of(weight)?)?;
        output(shape.forward(&*machine, [&x, &matrix], bias.as_ref())?)
    }

    fn gradients(
        &self,
        [x, weight]: [&Tensor; 2],
        gradient: &Array,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let (machine, pixels) = (machine_of(x)?, Array::of(x)?);
        let shape = Convolution::new(&pixels, weight.shape(), self)?;
        let of_x = || {
            let matrix = shape.matrix(&*machine, &Array::of(weight)?)?;
            shape.input_gradient(&*machine, [gradient, &matrix], x.shape())?.into_tensor()
        };
        let of_weight = || shape.weight_gradient(&*machine, [gradient, &pixels])?.into_tensor();
        Ok([wanted[0].then(of_x).transpose()?, wanted[1].then(of_weight).transpose()?])
    }
}
