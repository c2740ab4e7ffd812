//! An output matrix, cut into parts that different threads write.

use std::marker::PhantomData;
use std::ops::Range;

/// Rows and columns of a matrix in a slice that nobody else reads or writes.
pub(super) struct Window<'a> {
    first: *mut f32,
    /// Elements between rows.
    stride: usize,
    rows: usize,
    columns: usize,
    lent: PhantomData<&'a mut [f32]>,
}

// SAFETY: a window is an exclusive borrow of its elements, like `&mut [f32]`; no two windows share an element.
unsafe impl Send for Window<'_> {}

impl<'a> Window<'a> {
    /// A matrix of `rows` rows, `stride` elements apart, and `columns` columns.
    pub(super) fn new(data: &'a mut [f32], stride: usize, [rows, columns]: [usize; 2]) -> Self {
        assert!(
            rows == 0 || columns <= stride && data.len() >= (rows - 1) * stride + columns,
            "BUG: a window of {rows} x {columns} exceeds its slice"
        );
        Self { first: data.as_mut_ptr(), stride, rows, columns, lent: PhantomData }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// One row.
    pub(super) fn row(&mut self, row: usize) -> &mut [f32] {
        let first = self.at([row..row + 1, 0..self.columns]);
        // SAFETY: the row is inside the window, which borrows it.
        unsafe { std::slice::from_raw_parts_mut(first, self.columns) }
    }

    /// The first element of a part; the part is inside the window.
    pub(super) fn at(&mut self, [rows, columns]: [Range<usize>; 2]) -> *mut f32 {
        assert!(rows.end <= self.rows && columns.end <= self.columns, "BUG: a part exceeds its window");
        // SAFETY: the part begins inside the window, and the window inside its slice.
        unsafe { self.first.add(rows.start * self.stride + columns.start) }
    }

    /// Cuts the window into bands of `width` columns and each band into blocks of `height` rows, and joins consecutive blocks: those
    /// of each range in `pieces`, within a band, become one window. Gives its first row and column too.
    pub(super) fn pieces(
        self,
        [height, width]: [usize; 2],
        pieces: &[Range<usize>],
    ) -> Vec<Vec<([usize; 2], Self)>> {
        let blocks = self.rows.div_ceil(height);
        let mut end = 0;
        let mut windows_of = |piece: &Range<usize>| {
            assert!(piece.start >= end, "BUG: pieces overlap");
            end = piece.end;
            let mut windows = Vec::new();
            let mut block = piece.start;
            while block < piece.end {
                let (row, column) = (block % blocks * height, block / blocks * width);
                let next = piece.end.min((block / blocks + 1) * blocks);
                let size = [((next - block) * height).min(self.rows - row), width.min(self.columns - column)];
                // SAFETY: the part begins inside this window, and no two parts share a block.
                let first = unsafe { self.first.add(row * self.stride + column) };
                let window =
                    Self { first, stride: self.stride, rows: size[0], columns: size[1], lent: PhantomData };
                windows.push(([row, column], window));
                block = next;
            }
            windows
        };
        pieces.iter().map(&mut windows_of).collect()
    }

    /// Cuts the window into bands of rows, each with its first row and column.
    pub(super) fn bands(self, rows: usize) -> Vec<([usize; 2], Self)> {
        let size = [rows, self.columns.max(1)];
        let blocks = self.blocks(size);
        let pieces: Vec<Range<usize>> = (0..blocks).map(|block| block..block + 1).collect();
        self.pieces(size, &pieces).into_iter().flatten().collect()
    }

    /// The number of blocks that [`Self::pieces`] counts.
    pub(super) fn blocks(&self, [height, width]: [usize; 2]) -> usize {
        self.rows.div_ceil(height) * self.columns.div_ceil(width)
    }
}
