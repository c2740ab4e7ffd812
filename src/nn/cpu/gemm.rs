//! Matrix products on slices: a checked serial one, and a parallel one whose result does not depend on the number of
//! threads, because it is split into serial products by shape alone.

use std::ops::Range;

use rayon::prelude::*;

use super::filled;
use super::pieces::{cut, each};

/// A matrix in a slice: element (i, j) is at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Matrix<'a> {
    /// Contiguous rows of `width` elements.
    pub(super) fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, column: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }

    /// The submatrix starting at element (row, column).
    pub(super) fn from(self, row: usize, column: usize) -> Self {
        Self { data: &self.data[row * self.row + column * self.column..], ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        self.data.len() > (rows - 1) * self.row + (columns - 1) * self.column
    }
}

/// How the product is stored in the destination.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Write {
    /// They are overwritten.
    Set,
    /// The product is added to them.
    Add,
}

/// `out (+)= scale * a b` on this thread: a [m, k], b [k, n], and out [m, n] with `stride` elements between rows.
pub(super) fn product(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    out: &mut [f32],
    stride: usize,
    write: Write,
    scale: f32,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        n <= stride && out.len() >= (m - 1) * stride + n && (k == 0 || (a.holds(m, k) && b.holds(k, n))),
        "BUG: a product of {m} x {k} and {k} x {n} exceeds its slices"
    );
    // SAFETY: the assertion ensures that all elements of a, b and out are inside their slices; out is mutably borrowed
    // for this call, and its rows do not overlap.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        )
    }
}

/// Rows or columns of the destination per serial product: enough to amortise packing.
const BLOCK: usize = 128;
/// Rows of a unit in which the work is cut where there are many; the last unit takes the rest too. With more than 64 rows the crate
/// `gemm` (0.19) cuts k in the same way for any number of them, so a row has the same bits in any block.
const ROWS: usize = 72;
/// Units of a serial product at most. The second matrix is packed for each; a product of 2,056 x 1,280 x 5,120 on one thread of an
/// AMD EPYC 7003 reaches 48 GFLOP/s in blocks of 128 rows, 56 in blocks of 256, 57 in blocks of 384, and no more in larger ones.
const TALL: usize = 5;
/// Units of a piece where there is enough work.
const LEAST: usize = 2;
/// Enough tasks to keep the cores of a workstation busy; with fewer, the work is split further.
pub(super) const TASKS: usize = 8;
/// Number of multiply-adds below which a second thread is slower.
pub(super) const SERIAL: usize = 1 << 18;

/// `start + a b` on all cores: a [m, k], b [k, n], an optional row `start` [n] added to all rows -> [m, n].
///
/// The work is split by rows if there are enough. A short and wide product, or a small product over a long k, is split
/// by columns and by k, with its parts added in order.
pub(super) fn parallel_product(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    start: Option<&[f32]>,
    out: &mut [f32],
) {
    let product_of_rows = |first: usize, out: &mut [f32]| {
        let write = match start {
            Some(start) => {
                out.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(start));
                Write::Add
            }
            None => Write::Set,
        };
        product([out.len() / n, n, k], a.from(first, 0), b, out, n, write, 1.0);
    };
    if m * n * k <= SERIAL {
        return product_of_rows(0, out);
    }
    if m.div_ceil(BLOCK) >= TASKS {
        let units = m / ROWS;
        let rows = |units_of: Range<usize>| {
            units_of.start * ROWS..if units_of.end == units { m } else { units_of.end * ROWS }
        };
        let mut rest = out;
        let mut lend = |piece: Range<usize>| {
            let lent = rest.split_off_mut(..rows(piece.clone()).len() * n);
            (piece, lent.expect("BUG: the rows of a product exceed its output"))
        };
        let pieces = cut(units, rayon::current_num_threads(), LEAST).into_iter().map(&mut lend);
        return each(pieces.collect(), |(piece, mut out)| {
            for first in piece.clone().step_by(TALL) {
                let rows = rows(first..(first + TALL).min(piece.end));
                let block = out.split_off_mut(..rows.len() * n).expect("BUG: a piece has these rows");
                product_of_rows(rows.start, block);
            }
        });
    }
    let blocks = n.div_ceil(BLOCK);
    let segments = TASKS.div_ceil(blocks).min(k.div_ceil(2 * BLOCK));
    let depth = k.div_ceil(segments);
    let parts: Vec<Vec<f32>> = (0..blocks * segments)
        .into_par_iter()
        .map(|task| {
            let (column, first) = (task / segments * BLOCK, (task % segments * depth).min(k));
            let shape = [m, BLOCK.min(n - column), depth.min(k - first)];
            let (a, b) = if shape[2] == 0 { (a, b) } else { (a.from(0, first), b.from(first, column)) };
            filled(m * shape[1], |part| product(shape, a, b, part, shape[1], Write::Set, 1.0))
        })
        .collect();
    add_parts(&parts, segments, BLOCK, start, out, n);
}

/// Writes `start` (or zeros) plus the parts to `out` (rows of `n`): part `i` covers the columns starting at
/// `i / segments * width`, and the parts of one range of columns are added in order.
pub(super) fn add_parts(
    parts: &[Vec<f32>],
    segments: usize,
    width: usize,
    start: Option<&[f32]>,
    out: &mut [f32],
    n: usize,
) {
    out.par_chunks_mut(n).with_min_len(16).enumerate().for_each(|(row, out)| {
        for (block, (columns, parts)) in out.chunks_mut(width).zip(parts.chunks(segments)).enumerate() {
            let length = columns.len();
            let mut terms = parts.iter().map(|part| &part[row * length..][..length]);
            let first = start.map(|start| &start[block * width..][..length]).or_else(|| terms.next());
            columns.copy_from_slice(first.expect("BUG: a sum of no parts"));
            for term in terms {
                columns.iter_mut().zip(term).for_each(|(sum, term)| *sum += term);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|index| (step * index as f32).sin()).collect()
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_block() {
        for ([n, k], rows) in [
            ([40, 96], &[1024, 1025, 1028, 2056, 6400][..]),
            ([33, 1100], &[1025, 1087, 1088]),
            ([1, 9], &[1100]),
        ] {
            let weight = numbers(n * k, 0.7);
            for &m in rows {
                let x = numbers(m * k, 0.3);
                let (x, weight) = (Matrix::rows(&x, k), Matrix::rows(&weight, k).transposed());
                let mut needed = vec![0.0; m * n];
                product([m, n, k], x, weight, &mut needed, n, Write::Set, 1.0);
                for threads in [1, 2, 3, 8, 64] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                    let mut found = vec![0.0; m * n];
                    pool.install(|| parallel_product([m, n, k], x, weight, None, &mut found));
                    let mut pairs = found.iter().zip(&needed);
                    let differs = pairs.position(|(found, needed)| found.to_bits() != needed.to_bits());
                    assert_eq!(differs, None, "{m} x {n} x {k} on {threads} threads");
                }
            }
        }
    }
}
