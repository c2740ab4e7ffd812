//! Matrix products of bf16 operands with sums in f32, for processors with AVX-512 BF16.
//!
//! The right operand is packed for `vdpbf16ps`: 16 columns of two consecutive rows side by side in one vector. The left one is read
//! as it lies. A tile of six rows and four vectors of columns keeps its sums in registers over up to [`DEPTH`] rows of the right
//! operand; then it adds them to the output. So the sum of an output has one order, whatever its task computes besides.
//!
//! Where the processor has the tiles of AMX, they compute all products; both kinds read the same packed operands.
//!
//! Error of an output, for operands that are zero or in the range of normal numbers:
//! `|y - sum a b| <= (2^-8 + k 2^-23) sum |a b|` if one of both is in bf16 and the other is rounded from f32; if both are rounded,
//! `2^-7 + 2^-16` instead of `2^-8`. Products are exact, because 8 bits by 8 bits fit in 24.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod conv;
mod layout;
mod linear;
#[cfg(not(target_arch = "x86_64"))]
mod missing;
mod seen;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Unit;
#[cfg(not(target_arch = "x86_64"))]
pub(super) use missing::Unit;

pub(super) use attention::Head;
pub(super) use layout::{DEPTH, Left, Packing, Right, WIDTH};
use layout::{GRAIN, LANES, Part, ROWS, TILE_BLOCKS, VECTORS};
pub(super) use seen::Seen;

use super::gemm::{Matrix, Write};
use super::pieces::{FEW, cut, each};
use super::scratch;
use super::window::Window;

/// How a product is cut: into blocks of so many rows and columns, and those into pieces.
pub(super) struct Cut {
    pub(super) block: [usize; 2],
    pub(super) pieces: Vec<Range<usize>>,
}

impl Cut {
    /// For `threads` threads. Blocks of tiles are as large as caches allow, and smaller if there would be few for each thread.
    fn new(out: &Window, threads: usize, tiles: bool) -> Self {
        let (blocks, least): (&[[usize; 2]], usize) = match tiles {
            true => (TILE_BLOCKS, 1),
            false => (&[[ROWS, WIDTH]], 8),
        };
        let enough = |block: &&[usize; 2]| out.blocks(**block) >= FEW * threads;
        let block = *blocks.iter().find(enough).unwrap_or(&blocks[blocks.len() - 1]);
        Self { block, pieces: cut(out.blocks(block), threads, least) }
    }
}

impl Unit {
    /// Whether products are computed by the tiles of AMX.
    pub(super) fn has_tiles(self) -> bool {
        self.tiles().is_some()
    }

    /// For the threads of this pool.
    pub(super) fn cut(self, out: &Window) -> Cut {
        Cut::new(out, rayon::current_num_threads(), self.has_tiles())
    }

    /// `out (+)= left right`, for all rows of `out` and the columns of `right` from `first_column` on, the first of a block.
    pub(super) fn multiply(
        self,
        left: Left,
        right: Right,
        first_column: usize,
        write: Write,
        out: &mut Window,
    ) {
        let packing = right.packing;
        let step = (DEPTH / packing.chunk).max(1) * packing.chunk;
        let end = first_column + out.columns();
        assert!(end <= packing.columns, "BUG: a product of other columns");
        if let Some(tiles) = self.tiles() {
            return tiles.multiply(left, right, first_column, write, out);
        }
        assert!(
            first_column.is_multiple_of(WIDTH) && packing.chunk.is_multiple_of(2),
            "BUG: a product of other columns"
        );
        for first in (0..packing.depth).step_by(step) {
            let pairs = step.min(packing.depth - first).div_ceil(2);
            let chunk = &right.data[first / packing.chunk * packing.stride..];
            for (column, columns, element) in packing.panels() {
                if !(first_column..end).contains(&column) {
                    continue;
                }
                assert!(column + columns <= end, "BUG: a product of a part of a panel");
                let part = |row: usize| Part {
                    left: left.from(row, first),
                    right: &chunk[element..],
                    pairs,
                    chunk: packing.chunk / 2,
                    stride: packing.stride,
                    adds: write == Write::Add || first > 0,
                };
                for row in (0..out.rows()).step_by(ROWS) {
                    let size = [ROWS.min(out.rows() - row), columns];
                    self.any_tile(&part(row), [row, column - first_column], size, out);
                }
            }
        }
    }

    fn any_tile(self, part: &Part, at: [usize; 2], size: [usize; 2], out: &mut Window) {
        match size[0] {
            1 => self.tile_of::<1>(part, at, size[1], out),
            2 => self.tile_of::<2>(part, at, size[1], out),
            3 => self.tile_of::<3>(part, at, size[1], out),
            4 => self.tile_of::<4>(part, at, size[1], out),
            5 => self.tile_of::<5>(part, at, size[1], out),
            _ => self.tile_of::<ROWS>(part, at, size[1], out),
        }
    }

    fn tile_of<const R: usize>(self, part: &Part, at: [usize; 2], columns: usize, out: &mut Window) {
        match columns.div_ceil(LANES) {
            1 => self.tile::<R, 1>(part, at, columns, out),
            2 => self.tile::<R, 2>(part, at, columns, out),
            3 => self.tile::<R, 3>(part, at, columns, out),
            _ => self.tile::<R, VECTORS>(part, at, columns, out),
        }
    }

    /// Lends `rows` rows of `depth` numbers, times `scale` and rounded, as a left operand.
    pub(super) fn lend_left<R>(
        self,
        from: Matrix,
        [rows, depth]: [usize; 2],
        scale: f32,
        work: impl FnOnce(Left) -> R,
    ) -> R {
        assert!(from.column == 1, "BUG: a left operand in columns");
        let step = depth.next_multiple_of(GRAIN);
        halves(rows * step, |data| {
            self.round_rows(from, depth, scale, data);
            work(Left { data, step, padded: true })
        })
    }

    /// `out (+)= left b` on this thread, rounding b, which is in rows.
    pub(super) fn multiply_rows(self, left: Left, b: Matrix, depth: usize, write: Write, out: &mut Window) {
        assert!(b.column == 1, "BUG: a right operand in columns");
        let packing = Packing::new(depth, out.columns(), DEPTH);
        pairs(packing.length(), |right| {
            for (chunk, to) in right.chunks_exact_mut(packing.stride).enumerate() {
                let first = chunk * packing.chunk;
                let rows = packing.chunk.min(depth - first);
                self.pack_rows(&packing, &b.data[first * b.row..], b.row, rows, to);
            }
            self.multiply(left, Right { data: right, packing }, 0, write, out);
        })
    }

    /// `out (+)= scale a b` on this thread, rounding both operands: a [m, k] and b [k, n], both in rows, and out [m, n] with its
    /// elements between rows.
    pub(super) fn product(
        self,
        [m, n, k]: [usize; 3],
        a: Matrix,
        b: Matrix,
        (out, stride): (&mut [f32], usize),
        write: Write,
        scale: f32,
    ) {
        let mut out = Window::new(out, stride, [m, n]);
        self.lend_left(a, [m, k], scale, |left| self.multiply_rows(left, b, k, write, &mut out));
    }

    /// `out = left right + bias` on all threads, with one bias for each row.
    pub(super) fn parallel(self, left: Left, right: Right, bias: &[f32], out: Window) {
        let Cut { block, pieces } = self.cut(&out);
        each(out.pieces(block, &pieces), |windows| {
            for ([row, column], mut window) in windows {
                for (index, bias) in bias[row..].iter().take(window.rows()).enumerate() {
                    window.row(index).fill(*bias);
                }
                self.multiply(left.from(row, 0), right, column, Write::Add, &mut window);
            }
        });
    }
}

/// Lends a buffer of this thread for bf16 numbers.
pub(super) fn halves<R>(length: usize, work: impl FnOnce(&mut [u16]) -> R) -> R {
    scratch(length.div_ceil(2), |buffer| work(&mut bytemuck::cast_slice_mut(buffer)[..length]))
}

/// Lends a buffer of this thread for pairs of them.
pub(super) fn pairs<R>(length: usize, work: impl FnOnce(&mut [u32]) -> R) -> R {
    scratch(length, |buffer| work(bytemuck::cast_slice_mut(buffer)))
}

#[cfg(test)]
mod tests;
