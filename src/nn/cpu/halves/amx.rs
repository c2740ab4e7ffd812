//! The tiles of AMX: products of bf16 operands of 16 rows by 16 columns, 32 terms at a time.
//!
//! For each output, `tdpbf16ps` sums the products of even terms and those of odd terms, each addition in f32 rounded to the nearest, and
//! adds both sums to what is there. Like `vdpbf16ps` it takes numbers below 2^-126 as zero. A product begins with the output or with
//! zero and adds its terms in order, so it has one order of sums, whatever is computed besides. Source: Intel, Architecture Instruction
//! Set Extensions Programming Reference, chapter 3.
//!
//! All instructions are assembly, because Rust's functions for them are not stable.

use std::arch::asm;

use super::super::gemm::Write;
use super::super::window::Window;
use super::layout::{GRAIN, LANES, Left, Right, SIDE, TILE_BLOCKS, WIDTH};
use crate::backend::amx;

/// Rows of a block of sums: two tiles, which share the tiles of the right operand. And columns between two passes over the rows: the
/// panels of so many columns and [`DEPTH`] terms, 720 KiB, stay in a second-level cache of 2 MiB.
const ROWS: usize = TILE_BLOCKS[0][0];
const COLUMNS: usize = TILE_BLOCKS[0][1];

/// Terms that are summed before the next panel: loading and storing the sums then takes little of the time.
const DEPTH: usize = 1440;
/// Terms of a step: a row of a left tile.
const TERMS: usize = GRAIN;

/// Proof that this processor has the tiles and that the system lets this process use them.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn::cpu) struct Tiles(());

impl Tiles {
    /// Asks the processor and the system.
    pub(super) fn detect() -> Option<Self> {
        amx::available().then_some(Self(()))
    }

    /// `out (+)= left right`, for all rows of `out` and the columns of `right` from `first_column` on.
    pub(super) fn multiply(
        self,
        left: Left,
        right: Right,
        first_column: usize,
        write: Write,
        out: &mut Window,
    ) {
        let packing = right.packing;
        let end = first_column + out.columns();
        assert!(packing.chunk.is_multiple_of(GRAIN), "BUG: chunks of {} terms", packing.chunk);
        let starts_block = first_column.is_multiple_of(2 * SIDE) || out.columns() <= SIDE;
        assert!(
            starts_block && first_column.is_multiple_of(SIDE),
            "BUG: a product from column {first_column} on"
        );
        let step = (DEPTH / packing.chunk).max(1) * packing.chunk;
        let configured = Configured::new(self);
        for first in (0..packing.depth).step_by(step) {
            let terms = step.min(packing.depth - first);
            let chunks = &right.data[first / packing.chunk * packing.stride..];
            for from in (first_column..end).step_by(COLUMNS) {
                for row in (0..out.rows()).step_by(ROWS) {
                    let rows = ROWS.min(out.rows() - row);
                    for column in (from..end.min(from + COLUMNS)).step_by(2 * SIDE) {
                        let columns = (2 * SIDE).min(end - column);
                        let panel = column / WIDTH * WIDTH;
                        let width = WIDTH.min(packing.columns - panel).next_multiple_of(LANES);
                        let block = Block {
                            left: left.from(row, first),
                            right: &chunks[panel * packing.chunk / 2 + (column - panel)..],
                            width,
                            terms,
                            chunk: packing.chunk,
                            stride: packing.stride,
                            size: [rows, columns],
                            adds: write == Write::Add || first > 0,
                        };
                        let at = column - first_column;
                        let stride = out.stride();
                        let out = out.at([row..row + rows, at..at + columns]);
                        block.check();
                        // SAFETY: the tiles are configured, the operands were checked, and the window lends these outputs.
                        unsafe { block.multiply(&configured, out, stride) };
                    }
                }
            }
        }
    }
}

/// This thread's tiles, each of 16 rows of 64 bytes; released at the end, so that the system need not save them.
struct Configured(Tiles);

impl Configured {
    fn new(tiles: Tiles) -> Self {
        #[repr(align(64))]
        struct Palette([u8; 64]);
        static WHOLE: Palette = {
            let mut bytes = [0; 64];
            bytes[0] = 1;
            let mut tile = 0;
            while tile < 8 {
                bytes[16 + 2 * tile] = 64;
                bytes[48 + tile] = SIDE as u8;
                tile += 1;
            }
            Palette(bytes)
        };
        // SAFETY: the tiles are there; the palette is one that every such processor has.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) WHOLE.0.as_ptr(), options(nostack, preserves_flags, readonly))
        };
        Self(tiles)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Up to 32 rows by 32 columns of a product, in four tiles of sums.
struct Block<'a> {
    /// The rows from their first term on.
    left: Left<'a>,
    /// The panel in the first chunk, from the first column on.
    right: &'a [u32],
    /// Columns of the panel as packed.
    width: usize,
    terms: usize,
    chunk: usize,
    /// From one chunk to the next.
    stride: usize,
    /// Rows and columns.
    size: [usize; 2],
    /// Whether the sums begin with the outputs.
    adds: bool,
}

/// A tile in memory.
#[repr(align(64))]
struct Buffer<T, const WIDTH: usize>([[T; WIDTH]; SIDE]);

impl Block<'_> {
    /// Panics unless the operands hold what is read.
    fn check(&self) {
        let [rows, columns] = self.size;
        let last = self.terms.saturating_sub(1) / self.chunk;
        let rest = (self.terms - last * self.chunk).next_multiple_of(TERMS);
        let right = last * self.stride + (rest / 2 - 1) * self.width + columns.next_multiple_of(SIDE);
        let terms = if self.left.padded { self.terms.next_multiple_of(TERMS) } else { self.terms };
        let left = (rows - 1) * self.left.step + terms;
        assert!(
            self.right.len() >= right && self.left.data.len() >= left,
            "BUG: a block exceeds its operands"
        );
    }

    /// # Safety
    /// `check` has passed, and `out` can be written at the block's rows, `stride` apart, and columns.
    unsafe fn multiply(&self, _: &Configured, out: *mut f32, stride: usize) {
        // SAFETY: as for the caller; the numbers of tiles are those of the size.
        unsafe {
            match self.size.map(|size| size.div_ceil(SIDE)) {
                [1, 1] => self.tiles::<1, 1>(out, stride),
                [1, _] => self.tiles::<1, 2>(out, stride),
                [_, 1] => self.tiles::<2, 1>(out, stride),
                [_, _] => self.tiles::<2, 2>(out, stride),
            }
        }
    }

    /// # Safety
    /// As for `multiply`, for a block of `R` by `C` tiles.
    unsafe fn tiles<const R: usize, const C: usize>(&self, out: *mut f32, stride: usize) {
        let whole = self.size[0] == R * SIDE;
        // SAFETY: tiles are read as far as `check` looked, and through buffers where a row or a term is missing.
        unsafe {
            self.sums::<R, C>(out, stride, true);
            let (mut left, mut right, mut rest) = (self.left.data.as_ptr(), self.right.as_ptr(), self.terms);
            while rest > 0 {
                let terms = rest.min(self.chunk);
                let direct = match (whole, self.left.padded) {
                    (true, true) => terms.div_ceil(TERMS),
                    (true, false) => terms / TERMS,
                    (false, _) => 0,
                };
                for step in 0..direct {
                    let from = left.add(step * TERMS);
                    let below = if R == 2 { from.add(SIDE * self.left.step) } else { from };
                    self.step::<R, C>(
                        [from, below],
                        self.left.step,
                        right.add(step * TERMS / 2 * self.width),
                    );
                }
                for first in (direct * TERMS..terms.max(direct * TERMS)).step_by(TERMS) {
                    let buffers = self.copy(left.add(first), TERMS.min(terms - first));
                    let rows = [&buffers[0], &buffers[1]].map(|buffer| buffer.0.as_ptr().cast());
                    self.step::<R, C>(rows, TERMS, right.add(first / 2 * self.width));
                }
                rest -= terms;
                left = left.wrapping_add(terms);
                right = right.wrapping_add(self.stride);
            }
            self.sums::<R, C>(out, stride, false);
        }
    }

    /// The left tiles of one step, with zeros where the block has no row or no term.
    ///
    /// # Safety
    /// The block's rows can be read from `from` on for `terms` terms.
    unsafe fn copy(&self, from: *const u16, terms: usize) -> [Buffer<u16, TERMS>; 2] {
        let mut buffers = [const { Buffer([[0; TERMS]; SIDE]) }; 2];
        for row in 0..self.size[0] {
            let to = buffers[row / SIDE].0[row % SIDE].as_mut_ptr();
            // SAFETY: the caller lends the terms; a row of a buffer holds `TERMS`.
            unsafe { from.add(row * self.left.step).copy_to_nonoverlapping(to, terms) };
        }
        buffers
    }

    /// Adds 32 terms to all sums. Tiles 0 to 3 are the sums, 4 and 5 the left operand, 6 and 7 the right one.
    ///
    /// # Safety
    /// The operands can be read: 16 rows of 64 bytes from each pointer on, `step` elements apart, and as many of the panel.
    #[inline(always)]
    unsafe fn step<const R: usize, const C: usize>(
        &self,
        left: [*const u16; 2],
        step: usize,
        right: *const u32,
    ) {
        let (step, width) = (step * size_of::<u16>(), self.width * size_of::<u32>());
        // SAFETY: the caller's.
        unsafe {
            load::<4>(left[0].cast(), step);
            load::<6>(right.cast(), width);
            add_products::<0, 4, 6>();
            if C == 2 {
                load::<7>(right.add(SIDE).cast(), width);
                add_products::<1, 4, 7>();
            }
            if R == 2 {
                load::<5>(left[1].cast(), step);
                add_products::<2, 5, 6>();
                if C == 2 {
                    add_products::<3, 5, 7>();
                }
            }
        }
    }

    /// Puts the outputs, or zero, into the tiles of sums; or puts the sums into the outputs.
    ///
    /// # Safety
    /// As for `multiply`.
    unsafe fn sums<const R: usize, const C: usize>(&self, out: *mut f32, stride: usize, begins: bool) {
        // SAFETY: as for the caller.
        unsafe {
            self.sum::<0>([0, 0], out, stride, begins);
            if C == 2 {
                self.sum::<1>([0, SIDE], out, stride, begins);
            }
            if R == 2 {
                self.sum::<2>([SIDE, 0], out, stride, begins);
                if C == 2 {
                    self.sum::<3>([SIDE, SIDE], out, stride, begins);
                }
            }
        }
    }

    /// One tile of sums, through a buffer where the block ends inside it.
    ///
    /// # Safety
    /// As for `multiply`.
    unsafe fn sum<const TILE: usize>(&self, at: [usize; 2], out: *mut f32, stride: usize, begins: bool) {
        let [rows, columns] = [0, 1].map(|i| SIDE.min(self.size[i] - at[i]));
        let bytes = stride * size_of::<f32>();
        // SAFETY: the block holds these rows and columns; a whole tile is read and written in place, another one in the buffer.
        unsafe {
            let out = out.add(at[0] * stride + at[1]);
            match (begins, self.adds, rows == SIDE && columns == SIDE) {
                (true, false, _) => clear::<TILE>(),
                (true, true, true) => load::<TILE>(out.cast(), bytes),
                (false, _, true) => store::<TILE>(out, bytes),
                (true, true, false) => {
                    let mut buffer = Buffer([[0.0; SIDE]; SIDE]);
                    for (row, to) in buffer.0.iter_mut().take(rows).enumerate() {
                        out.add(row * stride).copy_to_nonoverlapping(to.as_mut_ptr(), columns);
                    }
                    load::<TILE>(buffer.0.as_ptr().cast(), size_of_val(&buffer.0[0]));
                }
                (false, _, false) => {
                    let mut buffer = Buffer([[0.0; SIDE]; SIDE]);
                    store::<TILE>(buffer.0.as_mut_ptr().cast(), size_of_val(&buffer.0[0]));
                    for (row, from) in buffer.0.iter().take(rows).enumerate() {
                        from.as_ptr().copy_to_nonoverlapping(out.add(row * stride), columns);
                    }
                }
            }
        }
    }
}

/// # Safety
/// The tiles are configured, and 16 rows of 64 bytes, `step` bytes apart, can be read.
#[inline(always)]
unsafe fn load<const TILE: usize>(from: *const u8, step: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tileloadd tmm{tile}, [{from} + {step}*1]", tile = const TILE, from = in(reg) from, step = in(reg) step,
            options(nostack, preserves_flags, readonly));
    }
}

/// # Safety
/// The tiles are configured, and 16 rows of 64 bytes, `step` bytes apart, can be written.
#[inline(always)]
unsafe fn store<const TILE: usize>(to: *mut f32, step: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!("tilestored [{to} + {step}*1], tmm{tile}", tile = const TILE, to = in(reg) to, step = in(reg) step,
            options(nostack, preserves_flags));
    }
}

/// # Safety
/// The tiles are configured.
#[inline(always)]
unsafe fn clear<const TILE: usize>() {
    // SAFETY: the caller's.
    unsafe { asm!("tilezero tmm{tile}", tile = const TILE, options(nostack, preserves_flags, nomem)) }
}

/// # Safety
/// The tiles are configured.
#[inline(always)]
unsafe fn add_products<const SUMS: usize, const LEFT: usize, const RIGHT: usize>() {
    // SAFETY: the caller's.
    unsafe {
        asm!("tdpbf16ps tmm{sums}, tmm{left}, tmm{right}", sums = const SUMS, left = const LEFT, right = const RIGHT,
            options(nostack, preserves_flags, nomem));
    }
}
