//! The columns of a convolution (im2col): the receptive field of each output pixel, laid out so that the convolution
//! becomes a matrix product, and the inverse for gradients.

use std::ops::Range;

use super::simd::widest;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) input: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Geometry {
    /// Elements of one input channel.
    pub(super) fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Elements of one output channel.
    pub(super) fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Elements of the kernel per channel.
    pub(super) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Elements of one receptive field, the inner dimension of the product.
    pub(super) fn depth(&self) -> usize {
        self.input * self.taps()
    }

    /// Multiply-adds of the whole convolution.
    pub(super) fn macs(&self) -> usize {
        self.batch * self.output * self.pixels() * self.depth()
    }

    /// Whether the columns are identical to the image.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Whether each row of the columns is a shifted plane, as in every 3x3 layer that keeps the size.
    fn keeps_size(&self) -> bool {
        self.stride == 1 && self.out_width == self.width && self.out_height == self.height
    }

    /// The range of outputs along one side of `size`, out of `count`, whose source for kernel offset `tap` is inside
    /// the image.
    fn inside(&self, tap: usize, size: usize, count: usize) -> Range<usize> {
        let first = self.padding.saturating_sub(tap).div_ceil(self.stride);
        let end = (size + self.padding).saturating_sub(tap).div_ceil(self.stride).min(count);
        first.min(end)..end
    }

    /// Channel and kernel offsets (y, x) of a row of the columns.
    fn row(&self, row: usize) -> (usize, usize, usize) {
        let tap = row % self.taps();
        (row / self.taps(), tap / self.kernel, tap % self.kernel)
    }

    /// The shift of a column against its plane, in elements, for convolutions that keep the size.
    fn shift(&self, y: usize, x: usize) -> isize {
        (y as isize - self.padding as isize) * self.width as isize + x as isize - self.padding as isize
    }

    /// Writes the columns of the output rows `rows` of one image: `planes` [channels, h, w] becomes [channels * taps,
    /// rows * out_width], with `stride` elements between the starts of its rows.
    pub(super) fn gather<T: Copy + Default>(
        &self,
        planes: &[T],
        rows: Range<usize>,
        columns: &mut [T],
        stride: usize,
    ) {
        let (channels, length) = (planes.len() / self.plane(), rows.len() * self.out_width);
        for (index, column) in columns.chunks_mut(stride).take(channels * self.taps()).enumerate() {
            let (channel, y, x) = self.row(index);
            let plane = &planes[channel * self.plane()..][..self.plane()];
            let column = &mut column[..length];
            if self.keeps_size() {
                let shift = self.shift(y, x) + (rows.start * self.width) as isize;
                let (from, to) = overlap(shift, length, plane.len());
                column[..from].fill(T::default());
                column[to..].fill(T::default());
                if from < to {
                    column[from..to].copy_from_slice(&plane[(from as isize + shift) as usize..][..to - from]);
                }
                self.clear_edges(column, x);
            } else {
                widest(
                    #[inline(always)]
                    || self.gather_strided(plane, rows.clone(), (y, x), column),
                );
            }
        }
    }

    #[inline(always)]
    fn gather_strided<T: Copy + Default>(
        &self,
        plane: &[T],
        rows: Range<usize>,
        (y, x): (usize, usize),
        column: &mut [T],
    ) {
        let inside_y = self.inside(y, self.height, self.out_height);
        let inside_x = self.inside(x, self.width, self.out_width);
        for (out_y, line) in rows.zip(column.chunks_mut(self.out_width)) {
            if !inside_y.contains(&out_y) || inside_x.is_empty() {
                line.fill(T::default());
                continue;
            }
            line[..inside_x.start].fill(T::default());
            line[inside_x.end..].fill(T::default());
            let line = &mut line[inside_x.clone()];
            let source = &plane[(out_y * self.stride + y - self.padding) * self.width..][..self.width];
            let source = &source[inside_x.start * self.stride + x - self.padding..];
            if self.stride == 2 {
                // Pairs vectorise, strided reads do not. The second half of the last pair may be missing.
                let (pairs, single) = source.as_chunks::<2>();
                line.iter_mut().zip(pairs).for_each(|(to, [from, _])| *to = *from);
                if let ([last], true) = (single, pairs.len() < line.len()) {
                    line[pairs.len()] = *last;
                }
            } else {
                let steps = source.iter().step_by(self.stride);
                line.iter_mut().zip(steps).for_each(|(to, from)| *to = *from);
            }
        }
    }

    /// Adds the columns of one complete image to the pixels that they were copied from; the transpose of
    /// [`Self::gather`]. The columns are overwritten.
    #[inline(always)]
    pub(super) fn scatter(&self, columns: &mut [f32], stride: usize, planes: &mut [f32]) {
        let channels = planes.len() / self.plane();
        for (index, column) in columns.chunks_mut(stride).take(channels * self.taps()).enumerate() {
            let (channel, y, x) = self.row(index);
            let plane = &mut planes[channel * self.plane()..][..self.plane()];
            let column = &mut column[..self.pixels()];
            if self.keeps_size() {
                self.clear_edges(column, x);
                let shift = self.shift(y, x);
                let (from, to) = overlap(shift, column.len(), plane.len());
                if from < to {
                    let plane = &mut plane[(from as isize + shift) as usize..][..to - from];
                    plane.iter_mut().zip(&column[from..to]).for_each(|(sum, term)| *sum += term);
                }
            } else {
                self.scatter_strided(column, (y, x), plane);
            }
        }
    }

    fn scatter_strided(&self, column: &[f32], (y, x): (usize, usize), plane: &mut [f32]) {
        let inside_x = self.inside(x, self.width, self.out_width);
        if inside_x.is_empty() {
            return;
        }
        for out_y in self.inside(y, self.height, self.out_height) {
            let line = &column[out_y * self.out_width..][..self.out_width][inside_x.clone()];
            let target = &mut plane[(out_y * self.stride + y - self.padding) * self.width..][..self.width];
            let target = target[inside_x.start * self.stride + x - self.padding..].iter_mut();
            target.step_by(self.stride).zip(line).for_each(|(sum, term)| *sum += term);
        }
    }

    /// A shifted plane wraps around at the ends of its lines: these elements correspond to the padding.
    fn clear_edges<T: Copy + Default>(&self, column: &mut [T], x: usize) {
        let left = self.padding.saturating_sub(x).min(self.width);
        let right = self.width - x.saturating_sub(self.padding).min(self.width);
        for line in column.chunks_mut(self.width) {
            line[..left].fill(T::default());
            line[right..].fill(T::default());
        }
    }
}

/// The positions `i` below `length` for which `i + shift` is in `0..size`.
fn overlap(shift: isize, length: usize, size: usize) -> (usize, usize) {
    let from = (-shift).clamp(0, length as isize);
    let to = (size as isize - shift).clamp(from, length as isize);
    (from as usize, to as usize)
}
