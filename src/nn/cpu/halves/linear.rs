//! `x W^T + b` with W in bf16: x is rounded once, and each task packs the rows of W that it needs.

use rayon::prelude::*;

use super::{BLOCK_ROWS, DEPTH, LEAST, Left, Packing, Right, Unit, WIDTH, halves, pairs};
use crate::backend::caches;
use crate::nn::cpu::gemm::{Matrix, Write};
use crate::nn::cpu::pieces::{cut, each};
use crate::nn::cpu::window::Window;

/// Rows rounded per task.
const TASK_ROWS: usize = 32;

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
        let step = input.next_multiple_of(2);
        halves(rows * step, |rounded| {
            let tasks = rounded.par_chunks_mut(TASK_ROWS * step).zip(x.par_chunks(TASK_ROWS * input));
            tasks.for_each(|(to, from)| {
                self.round_rows(Matrix::rows(from, input), input, 1.0, to);
            });
            let left = Left { data: rounded, step };
            let (out, size) = (Window::new(y, output, [rows, output]), [BLOCK_ROWS, WIDTH]);
            let pieces = cut(out.blocks(size), rayon::current_num_threads(), LEAST);
            let together = rows_together();
            each(out.pieces(size, &pieces), |windows| {
                for ([row, column], mut window) in windows {
                    let columns = window.columns();
                    for row in 0..window.rows() {
                        window.row(row).copy_from_slice(&bias[column..][..columns]);
                    }
                    self.lend_columns(&weight[column * input..], [input, columns], |right| {
                        for ([below, _], mut window) in window.bands(together) {
                            self.multiply(left.from(row + below), right, 0, Write::Add, &mut window);
                        }
                    });
                }
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
fn rows_together() -> usize {
    let row = DEPTH * size_of::<u16>() + WIDTH * size_of::<f32>();
    (caches::second_level() / 2 / row).max(BLOCK_ROWS) / BLOCK_ROWS * BLOCK_ROWS
}
