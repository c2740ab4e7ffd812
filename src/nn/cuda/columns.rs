//! Launches the columns of a convolution with channels last, and the way back.

use std::ops::Range;

use candle_core::Result;

use super::channels::Numbers;
use super::launch::{Launch, Launcher, Pointer};

/// The columns of x [batch, height, width, channels]: a row [kernel, kernel, channels] for each output pixel.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Columns {
    pub(in crate::nn) numbers: Numbers,
    pub(in crate::nn) batch: usize,
    pub(in crate::nn) height: usize,
    pub(in crate::nn) width: usize,
    pub(in crate::nn) channels: usize,
    pub(in crate::nn) kernel: usize,
    pub(in crate::nn) stride: usize,
    pub(in crate::nn) padding: usize,
    /// Whether x is first enlarged twofold by repeating pixels.
    pub(in crate::nn) enlarged: bool,
}

const THREADS: u32 = 128;

impl Columns {
    /// Height and width of the output.
    pub(in crate::nn) fn output(&self) -> [usize; 2] {
        let size = |length| (self.scale() * length + 2 * self.padding - self.kernel) / self.stride + 1;
        [size(self.height), size(self.width)]
    }

    /// Elements of a row of the columns.
    pub(in crate::nn) fn row(&self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// The rows of the columns in slabs of at most `most` elements, or of one row: several whole images, or, where an
    /// image is larger than that, a part of one.
    pub(in crate::nn) fn slabs(&self, most: usize) -> impl Iterator<Item = Range<usize>> {
        let [height, width] = self.output();
        let (pixels, rows) = (height * width, (most / self.row()).max(1));
        let images = rows / pixels;
        let step = if images > 0 { images * pixels } else { rows };
        let parts = move |start: usize, end: usize| {
            (start..end).step_by(step).map(move |first| first..end.min(first + step))
        };
        // A slab smaller than an image never spans two.
        let span = if images > 0 { self.batch * pixels } else { pixels };
        (0..self.batch * pixels).step_by(span.max(1)).flat_map(move |start| parts(start, start + span))
    }

    /// Writes the columns of `rows`.
    pub(in crate::nn) fn forward(
        &self,
        launcher: &dyn Launcher,
        x: Pointer,
        columns: Pointer,
        rows: &Range<usize>,
    ) -> Result<()> {
        let kernel = self.numbers.variant("image_to_columns", self.channels);
        Launch::new(kernel, [rows.len(), 1, 1], THREADS)
            .moving(self.bytes(rows))
            .pointers([x, columns])
            .sizes([rows.start])
            .sizes(self.sizes())
            .run(launcher)
    }

    /// Adds the part of `rows` to the gradient of x, from the gradient of their columns. The slabs must come in order;
    /// the first one that touches a pixel writes it.
    pub(in crate::nn) fn backward(
        &self,
        launcher: &dyn Launcher,
        columns: Pointer,
        dx: Pointer,
        rows: &Range<usize>,
    ) -> Result<()> {
        let [height, width] = self.output();
        let images = rows.start / (height * width)..rows.end.div_ceil(height * width);
        let pixels = self.height * self.width;
        let kernel = self.numbers.variant("columns_to_image", self.channels);
        Launch::new(kernel, [images.len() * pixels, 1, 1], THREADS)
            .moving(self.bytes(rows))
            .pointers([columns, dx])
            .sizes([images.start * pixels, rows.start, rows.len()])
            .sizes(self.sizes())
            .run(launcher)
    }

    /// Bytes of these rows of the columns, and of their share of x.
    fn bytes(&self, rows: &Range<usize>) -> usize {
        let [height, width] = self.output();
        let of_x = self.height * self.width * self.channels * rows.len() / (height * width);
        (rows.len() * self.row() + of_x) * self.numbers.bytes()
    }

    fn scale(&self) -> usize {
        if self.enlarged { 2 } else { 1 }
    }

    fn sizes(&self) -> [usize; 9] {
        let [out_height, out_width] = self.output();
        let image = [self.height, self.width, self.channels, out_height, out_width];
        let [a, b, c, d, e] = image;
        [a, b, c, d, e, self.kernel, self.stride, self.padding, self.scale()]
    }
}
