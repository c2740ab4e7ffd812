//! The layout of padded images as one line of pixels, and the copy into that layout.

use std::ops::Range;

/// Lanes of the widest vector.
pub(super) const LANES: usize = 16;

/// The image rows in one line: some rows of one image, or all rows of several.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
    /// Of a complete image.
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Line {
    /// Distance in elements between a pixel and the one below.
    fn pitch(&self) -> usize {
        self.width + 1
    }

    /// Rows of one image and the padding row after it.
    fn period(&self) -> usize {
        self.rows.len() + 1
    }

    /// Distance in elements from the first pixel to the end of the last.
    pub(super) fn length(&self) -> usize {
        (self.images.len() * self.period() - 1) * self.pitch()
    }

    /// Elements of a padded channel: one row before, one row after, and the elements that the last tile reads beyond
    /// the end.
    pub(super) fn channel(&self) -> usize {
        self.length().next_multiple_of(LANES) + 2 * self.pitch() + LANES
    }

    /// The offsets of the pixels under the taps, relative to that under the first tap.
    pub(super) fn taps(&self) -> [usize; 9] {
        std::array::from_fn(|tap| tap / 3 * self.pitch() + tap % 3)
    }

    /// The start of a row of an image, relative to the first pixel.
    pub(super) fn start(&self, image: usize, row: usize) -> usize {
        (image * self.period() + row) * self.pitch()
    }

    /// Copies one channel, whose planes are `step` elements apart, with neighbouring rows and padding zeros.
    pub(super) fn pad(&self, planes: &[f32], step: usize, padded: &mut [f32]) {
        let (period, pitch) = (self.period(), self.pitch());
        for (row, to) in padded.chunks_mut(pitch).enumerate() {
            // The row after the last image counts as part of it: if the image is split, this can be its next row.
            let image = (row.saturating_sub(1) / period).min(self.images.len() - 1);
            let row = row - image * period;
            match (self.rows.start + row).checked_sub(1) {
                Some(y) if y < self.height && row <= period && to.len() == pitch => {
                    let from = (self.images.start + image) * step + y * self.width;
                    to[0] = 0.0;
                    to[1..].copy_from_slice(&planes[from..][..self.width]);
                }
                _ => to.fill(0.0),
            }
        }
    }
}
