//! How the operands of a product lie in memory, and the sizes of its tiles.

use std::ops::Range;

/// Numbers of f32, or pairs of bf16, in a vector.
pub(super) const LANES: usize = 16;
/// Rows of a tile, and vectors in each. 24 sums hide the latency of the instruction and leave registers for the operands; 8 x 3
/// and 12 x 2 were no faster (AMD EPYC 9005, 2026-11).
pub(super) const ROWS: usize = 6;
pub(super) const VECTORS: usize = 4;
/// Columns of a packed panel.
pub(in crate::nn::cpu) const WIDTH: usize = VECTORS * LANES;
/// Rows of the right operand that a tile sums before it adds to the output: 40 KiB of a panel, for a first-level cache of 48 KiB, and
/// a whole number of times in the channels of SD's layers. A constant, because the order of sums depends on it.
pub(in crate::nn::cpu) const DEPTH: usize = 320;
/// Rows and columns of a tile of sums in AMX.
pub(super) const SIDE: usize = 16;
/// Rows and columns of the blocks in which work for such tiles is cut, for few threads first: two tiles by four panels, and down to one
/// tile.
pub(super) const TILE_BLOCKS: &[[usize; 2]] =
    &[[2 * SIDE, 4 * WIDTH], [2 * SIDE, WIDTH], [SIDE, WIDTH], [SIDE, 2 * SIDE], [SIDE, SIDE]];

/// Rows of a chunk are a multiple of this where chunks follow each other, for units that sum so many terms at once. What is missing of
/// it in the last chunk is zero.
pub(in crate::nn::cpu) const GRAIN: usize = 32;

/// How a right operand [depth, columns] is packed: in chunks of rows, each in panels of [`WIDTH`] columns, each pair of rows in turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::cpu) struct Packing {
    pub(in crate::nn::cpu) depth: usize,
    pub(in crate::nn::cpu) columns: usize,
    /// Rows of a chunk, an even number; for tiles a multiple of [`GRAIN`].
    pub(in crate::nn::cpu) chunk: usize,
    /// Elements from one chunk to the next.
    pub(in crate::nn::cpu) stride: usize,
}

impl Packing {
    /// Chunks of at most `most` rows, one after the other.
    pub(in crate::nn::cpu) fn new(depth: usize, columns: usize, most: usize) -> Self {
        let chunk = depth.div_ceil(depth.div_ceil(most).max(1)).next_multiple_of(GRAIN).max(GRAIN);
        Self { depth, columns, chunk, stride: Self::elements(chunk, columns) }
    }

    /// Elements of a packed chunk.
    pub(in crate::nn::cpu) fn elements(chunk: usize, columns: usize) -> usize {
        chunk / 2 * columns.next_multiple_of(LANES)
    }

    /// Elements of all chunks.
    pub(in crate::nn::cpu) fn length(&self) -> usize {
        self.depth.div_ceil(self.chunk) * self.stride
    }

    /// The elements of a panel [pairs, width] that `rows` rows leave free, up to the end of the last [`GRAIN`].
    pub(super) fn free(&self, rows: usize, width: usize) -> Range<usize> {
        let end = rows.next_multiple_of(GRAIN).min(self.chunk);
        rows.div_ceil(2) * width..end / 2 * width
    }

    /// The panels of a chunk: first column, columns, and first element.
    pub(super) fn panels(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let Self { columns, chunk, .. } = *self;
        let panel = move |first: usize| (first, WIDTH.min(columns - first), first * chunk / 2);
        (0..columns).step_by(WIDTH).map(panel)
    }
}

/// A left operand: rows of bf16, `step` elements apart. In a row of odd length, one zero follows the last number.
#[derive(Clone, Copy)]
pub(in crate::nn::cpu) struct Left<'a> {
    pub(in crate::nn::cpu) data: &'a [u16],
    pub(in crate::nn::cpu) step: usize,
    /// Whether zeros follow up to the next [`GRAIN`].
    pub(in crate::nn::cpu) padded: bool,
}

impl Left<'_> {
    /// The rows from `row` on, and of each row the numbers from `term` on.
    pub(in crate::nn::cpu) fn from(self, row: usize, term: usize) -> Self {
        Self { data: &self.data[row * self.step + term..], ..self }
    }
}

/// A packed right operand.
#[derive(Clone, Copy)]
pub(in crate::nn::cpu) struct Right<'a> {
    pub(in crate::nn::cpu) data: &'a [u32],
    pub(in crate::nn::cpu) packing: Packing,
}

/// The operands of a tile.
pub(super) struct Part<'a> {
    pub(super) left: Left<'a>,
    /// The panel in the first chunk.
    pub(super) right: &'a [u32],
    /// Pairs of rows, in all and in each chunk.
    pub(super) pairs: usize,
    pub(super) chunk: usize,
    /// From one chunk to the next.
    pub(super) stride: usize,
    /// Whether the sums are added to the output.
    pub(super) adds: bool,
}

impl Part<'_> {
    /// Whether the slices hold the operands of a tile of so many rows and vectors.
    pub(super) fn holds(&self, rows: usize, vectors: usize) -> bool {
        let last = self.pairs.saturating_sub(1) / self.chunk;
        let right = last * self.stride + (self.pairs - last * self.chunk) * vectors * LANES;
        self.left.data.len() >= (rows - 1) * self.left.step + 2 * self.pairs && self.right.len() >= right
    }
}
