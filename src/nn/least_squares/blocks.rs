//! Large symmetric matrices in double precision as square blocks, so that sums, factors and solutions are products of small
//! matrices: only one triangle is stored, and nothing is copied whole.

use candle_core::{DType, Device, Result, Tensor};

/// Rows and columns of a block.
pub(super) const BLOCK: usize = 256;

/// The places of the blocks of so many rows.
fn places(size: usize) -> impl ExactSizeIterator<Item = (usize, usize)> {
    let block = move |index: usize| (index * BLOCK, BLOCK.min(size - index * BLOCK));
    (0..size.div_ceil(BLOCK)).map(block)
}

/// A matrix as blocks of rows.
#[derive(Clone)]
pub(super) struct Rows(Vec<Tensor>);

impl Rows {
    pub(super) fn zeros(rows: usize, columns: usize) -> Result<Self> {
        places(rows)
            .map(|(_, rows)| Tensor::zeros((rows, columns), DType::F64, &Device::Cpu))
            .collect::<Result<_>>()
            .map(Self)
    }

    pub(super) fn of(matrix: &Tensor) -> Result<Self> {
        let block = |(first, rows)| matrix.narrow(0, first, rows)?.contiguous();
        places(matrix.dim(0)?).map(block).collect::<Result<_>>().map(Self)
    }

    pub(super) fn whole(&self) -> Result<Tensor> {
        Tensor::cat(&self.0, 0)
    }

    /// Rows and columns.
    pub(super) fn sizes(&self) -> Result<(usize, usize)> {
        let rows = self.0.iter().map(|block| block.dim(0)).sum::<Result<usize>>()?;
        let columns = self.0.first().map_or(Ok(0), |block| block.dim(1))?;
        Ok((rows, columns))
    }

    /// Adds `other * matrix`.
    pub(super) fn add_product(&mut self, other: &Self, matrix: &Tensor) -> Result<()> {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own = (&*own + other.matmul(matrix)?)?;
        }
        Ok(())
    }

    /// The sum of the products of all elements.
    pub(super) fn dot(&self, other: &Self) -> Result<f64> {
        self.0.iter().zip(&other.0).map(|(one, other)| dot(one, other)).sum()
    }
}

fn dot(one: &Tensor, other: &Tensor) -> Result<f64> {
    (one * other)?.sum_all()?.to_scalar::<f64>()
}

/// The lower triangle of a symmetric matrix: for each block of rows, the blocks up to the diagonal.
#[derive(Clone)]
pub(super) struct Triangle(Vec<Vec<Tensor>>);

/// The Cholesky factor `L` of a matrix `L L^T`, and the inverses of the blocks on its diagonal.
pub(super) struct Factor {
    lower: Vec<Vec<Tensor>>,
    inverses: Vec<Tensor>,
}

impl Triangle {
    pub(super) fn zeros(size: usize) -> Result<Self> {
        let row = |(index, (_, rows)): (usize, (usize, usize))| {
            places(size)
                .take(index + 1)
                .map(|(_, columns)| Tensor::zeros((rows, columns), DType::F64, &Device::Cpu))
                .collect()
        };
        places(size).enumerate().map(row).collect::<Result<_>>().map(Self)
    }

    /// Adds `z z^T`.
    pub(super) fn add_square(&mut self, z: &Rows) -> Result<()> {
        let transposed: Vec<Tensor> = z.0.iter().map(Tensor::t).collect::<Result<_>>()?;
        for (row, z) in self.0.iter_mut().zip(&z.0) {
            for (block, other) in row.iter_mut().zip(&transposed) {
                *block = (&*block + z.matmul(other)?)?;
            }
        }
        Ok(())
    }

    /// The elements on the diagonal.
    pub(super) fn diagonal(&self) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for block in self.0.iter().filter_map(|row| row.last()) {
            let rows = block.to_vec2::<f64>()?;
            all.extend(rows.iter().enumerate().map(|(index, row)| row[index]));
        }
        Ok(all)
    }

    /// The same matrix with numbers added on its diagonal.
    pub(super) fn with_diagonal(&self, added: &[f64]) -> Result<Self> {
        let mut sum = self.clone();
        for (row, added) in sum.0.iter_mut().zip(added.chunks(BLOCK)) {
            if let Some(block) = row.last_mut() {
                let size = added.len();
                let mut diagonal = vec![0.0; size * size];
                added.iter().enumerate().for_each(|(index, value)| diagonal[index * (size + 1)] = *value);
                *block = (&*block + Tensor::from_vec(diagonal, (size, size), &Device::Cpu)?)?;
            }
        }
        Ok(sum)
    }

    /// `trace(x^T A x)`.
    pub(super) fn form(&self, x: &Rows) -> Result<f64> {
        let mut sum = 0.0;
        for (index, row) in self.0.iter().enumerate() {
            for (column, block) in row.iter().enumerate() {
                let times = if column == index { 1.0 } else { 2.0 };
                sum += times * dot(&x.0[index], &block.matmul(&x.0[column])?)?;
            }
        }
        Ok(sum)
    }

    /// The Cholesky factor; `None` if the matrix is not positive definite.
    pub(super) fn factor(&self) -> Result<Option<Factor>> {
        let (mut lower, mut inverses): (Vec<Vec<Tensor>>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for (index, row) in self.0.iter().enumerate() {
            let mut own: Vec<Tensor> = Vec::with_capacity(index + 1);
            for (column, block) in row.iter().enumerate() {
                let mut rest = block.clone();
                for earlier in 0..column {
                    let other = if column == index { &own[earlier] } else { &lower[column][earlier] };
                    rest = (rest - own[earlier].matmul(&other.t()?)?)?;
                }
                if column < index {
                    own.push(rest.matmul(&inverses[column].t()?)?);
                } else {
                    let Some((factor, inverse)) = small_factor(&rest)? else { return Ok(None) };
                    own.push(factor);
                    inverses.push(inverse);
                }
            }
            lower.push(own);
        }
        Ok(Some(Factor { lower, inverses }))
    }
}

impl Factor {
    /// The solution `x` of `L L^T x = right`.
    pub(super) fn solve(&self, right: &Rows) -> Result<Rows> {
        let mut x = right.0.clone();
        for (index, row) in self.lower.iter().enumerate() {
            for column in 0..index {
                x[index] = (&x[index] - row[column].matmul(&x[column])?)?;
            }
            x[index] = self.inverses[index].matmul(&x[index])?;
        }
        for index in (0..x.len()).rev() {
            for below in index + 1..x.len() {
                x[index] = (&x[index] - self.lower[below][index].t()?.matmul(&x[below])?)?;
            }
            x[index] = self.inverses[index].t()?.matmul(&x[index])?;
        }
        Ok(Rows(x))
    }
}

/// The Cholesky factor of one block and its inverse.
fn small_factor(block: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
    let size = block.dim(0)?;
    let mut lower = block.to_vec2::<f64>()?;
    for row in 0..size {
        for column in 0..=row {
            let products = (0..column).map(|k| lower[row][k] * lower[column][k]);
            let rest = lower[row][column] - products.sum::<f64>();
            if column < row {
                lower[row][column] = rest / lower[column][column];
            } else if rest > 0.0 && rest.is_finite() {
                lower[row][row] = rest.sqrt();
            } else {
                return Ok(None);
            }
        }
        lower[row][row + 1..].fill(0.0);
    }
    let mut columns = vec![vec![0.0; size]; size];
    for (column, inverse) in columns.iter_mut().enumerate() {
        for (row, values) in lower.iter().enumerate().skip(column) {
            let products = (column..row).map(|k| values[k] * inverse[k]);
            let one = if row == column { 1.0 } else { 0.0 };
            inverse[row] = (one - products.sum::<f64>()) / values[row];
        }
    }
    let tensor = |rows: Vec<Vec<f64>>| Tensor::from_vec(rows.concat(), (size, size), &Device::Cpu);
    Ok(Some((tensor(lower)?, tensor(columns)?.t()?.contiguous()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, between -1 and 1.
    fn numbers(rows: usize, columns: usize) -> Result<Tensor> {
        let number = |index: usize| (1.0 + index as f64).powi(2).sin();
        Tensor::from_vec((0..rows * columns).map(number).collect::<Vec<_>>(), (rows, columns), &Device::Cpu)
    }

    #[test]
    fn a_system_of_several_blocks_is_solved() -> Result<()> {
        let size = 2 * BLOCK + 37;
        let z = numbers(size, size + 50)?;
        let mut matrix = Triangle::zeros(size)?;
        matrix.add_square(&Rows::of(&z)?)?;
        let matrix = matrix.with_diagonal(&vec![0.5; size])?;
        let whole = (z.matmul(&z.t()?)? + (Tensor::eye(size, DType::F64, &Device::Cpu)? * 0.5)?)?;
        let right = numbers(size, 3)?;
        let x = matrix.factor()?.expect("positive definite").solve(&Rows::of(&right)?)?;
        let error = (whole.matmul(&x.whole()?)? - &right)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(error < 1e-8, "{error}");

        let form = dot(&x.whole()?, &whole.matmul(&x.whole()?)?)?;
        assert!((matrix.form(&x)? / form - 1.0).abs() < 1e-10);
        let diagonal = matrix.diagonal()?;
        assert!((diagonal[size - 1] - whole.get(size - 1)?.get(size - 1)?.to_scalar::<f64>()?).abs() < 1e-9);
        assert!(matrix.with_diagonal(&vec![-1e6; size])?.factor()?.is_none());
        Ok(())
    }
}
