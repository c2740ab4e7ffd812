//! Pixels to tokens and back, and keys for attention: the last two dimensions change places.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, filled};
use crate::nn::operation::{Operation, Output};

/// Operand: [batch, rows, columns] in any shape of as many elements -> [batch, columns, rows] in the shape `to`.
pub(in crate::nn) struct Transpose {
    pub(in crate::nn) rows: usize,
    pub(in crate::nn) columns: usize,
    pub(in crate::nn) to: Shape,
}

/// Rows of the output per task, and the side of the square that is read and written at once.
const TILE: usize = 16;

impl Operation<1> for Transpose {
    fn forward(&self, [x]: &[Tensor; 1]) -> Result<Output> {
        Ok(Output::numbers(transpose(&elements(x)?, self.rows, self.columns), &self.to))
    }

    fn backward(
        &self,
        [x]: &[Tensor; 1],
        _: &Tensor,
        gradient: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let back = transpose(&elements(gradient)?, self.columns, self.rows);
        Ok([Some(Tensor::from_vec(back, x.shape(), x.device())?)])
    }
}

/// [batch, rows, columns] -> [batch, columns, rows].
pub(super) fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    filled(x.len(), |out| {
        let images = out.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns));
        images.for_each(|(out, x)| {
            out.par_chunks_mut(TILE * rows).enumerate().for_each(|(tile, out)| {
                let first = tile * TILE;
                for start in (0..rows).step_by(TILE) {
                    let end = rows.min(start + TILE);
                    for (column, out) in out.chunks_mut(rows).enumerate() {
                        for (out, row) in out[start..end].iter_mut().zip(start..) {
                            *out = x[row * columns + first + column];
                        }
                    }
                }
            });
        });
    })
}
