//! The geometry of a convolution, and how its outputs are split into tiles and blocks of tiles.

use std::ops::Range;

/// A 3x3 convolution of `images` images, stride 1 and padding 1.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::cpu) struct Winograd {
    pub(in crate::nn::cpu) images: usize,
    pub(in crate::nn::cpu) input: usize,
    pub(in crate::nn::cpu) output: usize,
    /// Of the outputs.
    pub(in crate::nn::cpu) height: usize,
    pub(in crate::nn::cpu) width: usize,
    /// Whether the input has half the height and width and is upsampled by two.
    pub(in crate::nn::cpu) upsampled: bool,
}

/// Tiles per block: enough columns for a fast matrix product, few enough for the L2 cache.
pub(super) const TILES: usize = 256;

impl Winograd {
    /// Number of rows (and columns) of a tile's 4x4 positions that can differ from zero.
    pub(super) fn sides(&self) -> &'static [usize] {
        if self.upsampled { &[0, 1, 3] } else { &[0, 1, 2, 3] }
    }

    /// Number of positions per tile.
    pub(super) fn positions(&self) -> usize {
        self.sides().len().pow(2)
    }

    /// Number of tiles in a row.
    pub(super) fn columns(&self) -> usize {
        self.width.div_ceil(2)
    }

    /// Number of tile rows in one image.
    pub(super) fn rows(&self) -> usize {
        self.height.div_ceil(2)
    }

    /// Number of tile rows in a block; a block can extend into the next image.
    pub(super) fn block_rows(&self) -> usize {
        (TILES / self.columns()).clamp(1, self.images * self.rows())
    }

    /// All tile rows, in blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let (all, step) = (self.images * self.rows(), self.block_rows());
        (0..all).step_by(step).map(move |first| first..(first + step).min(all))
    }

    /// Height and width of an input.
    pub(super) fn source(&self) -> (usize, usize) {
        if self.upsampled { (self.height / 2, self.width / 2) } else { (self.height, self.width) }
    }

    pub(super) fn input_plane(&self) -> usize {
        let (height, width) = self.source();
        height * width
    }

    pub(super) fn output_plane(&self) -> usize {
        self.height * self.width
    }

    /// Elements of the transformed weights of one output channel.
    pub(super) fn kernels(&self) -> usize {
        self.positions() * self.input
    }
}
