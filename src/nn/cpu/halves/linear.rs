//! `x W^T + b` with W in bf16: x is rounded once, and each task packs the rows of W that it needs.

use rayon::prelude::*;

use super::{Cut, DEPTH, GRAIN, Left, Packing, Right, Unit, halves, pairs};
use crate::backend::caches;
use crate::nn::cpu::gemm::{Matrix, Write};
use crate::nn::cpu::pieces::each;
use crate::nn::cpu::window::Window;

/// Rows rounded per task.
const TASK_ROWS: usize = 32;
/// Rows of a band, and bands for each thread from which on the work is cut into bands.
const BAND: usize = 128;
const BANDS: usize = 4;

impl Unit {
    /// x [rows, input], weight [output, input], bias [output] -> y [rows, output].
    pub(in crate::nn::cpu) fn affine(
        self,
        [rows, output, input]: [usize; 3],
        x: &[f32],
        weight: &[u16],
        bias: &[f32],
        y: &mut [f32],
    ) {
        if self.has_tiles() && rows >= BANDS * BAND * rayon::current_num_threads() {
            return self.affine_bands([output, input], x, weight, bias, y);
        }
        let step = input.next_multiple_of(GRAIN);
        halves(rows * step, |rounded| {
            let tasks = rounded.par_chunks_mut(TASK_ROWS * step).zip(x.par_chunks(TASK_ROWS * input));
            tasks.for_each(|(to, from)| {
                self.round_rows(Matrix::rows(from, input), input, 1.0, to);
            });
            let left = Left { data: rounded, step, padded: true };
            let out = Window::new(y, output, [rows, output]);
            let Cut { block, pieces } = self.cut(&out);
            let together = rows_together(block);
            each(out.pieces(block, &pieces), |windows| {
                for ([row, column], mut window) in windows {
                    let columns = window.columns();
                    for row in 0..window.rows() {
                        window.row(row).copy_from_slice(&bias[column..][..columns]);
                    }
                    self.lend_columns(&weight[column * input..], [input, columns], |right| {
                        for ([below, _], mut window) in window.bands(together) {
                            self.multiply(left.from(row + below, 0), right, 0, Write::Add, &mut window);
                        }
                    });
                }
            });
        });
    }

    /// The same for many rows: W is packed once, and each task rounds the rows that it multiplies.
    fn affine_bands(
        self,
        [output, input]: [usize; 2],
        x: &[f32],
        weight: &[u16],
        bias: &[f32],
        y: &mut [f32],
    ) {
        let packing = Packing::new(input, output, DEPTH);
        pairs(packing.length(), |right| {
            right.par_chunks_exact_mut(packing.stride).enumerate().for_each(|(chunk, to)| {
                let first = chunk * packing.chunk;
                self.pack_columns(&packing, &weight[first..], input, packing.chunk.min(input - first), to);
            });
            let right = Right { data: right, packing };
            let bands = x.chunks(BAND * input).zip(y.chunks_mut(BAND * output));
            each(bands.collect(), |(x, y)| {
                let rows = y.len() / output;
                y.chunks_exact_mut(output).for_each(|y| y.copy_from_slice(bias));
                let mut y = Window::new(y, output, [rows, output]);
                self.lend_left(Matrix::rows(x, input), [rows, input], 1.0, |left| {
                    self.multiply(left, right, 0, Write::Add, &mut y);
                });
            });
        });
    }

    /// Lends a right operand [depth, columns], packed from its columns.
    fn lend_columns<R>(self, from: &[u16], [depth, columns]: [usize; 2], work: impl FnOnce(Right) -> R) -> R {
        let packing = Packing::new(depth, columns, DEPTH);
        pairs(packing.length(), |data| {
            for (chunk, to) in data.chunks_exact_mut(packing.stride).enumerate() {
                let first = chunk * packing.chunk;
                self.pack_columns(&packing, &from[first..], depth, packing.chunk.min(depth - first), to);
            }
            work(Right { data, packing })
        })
    }
}

/// Rows that are multiplied with a panel before the next ones: what is read and written of them for [`DEPTH`] rows of the panel takes
/// half of the second-level cache.
fn rows_together([rows, columns]: [usize; 2]) -> usize {
    let row = DEPTH * size_of::<u16>() + columns * size_of::<f32>();
    (caches::second_level() / 2 / row).max(rows) / rows * rows
}
