//! Pictures as one line of pixels with zeros between: where things lie, and how they get there.

use std::ops::Range;

/// Lanes of the widest vector.
pub(super) const LANES: usize = 16;

/// Rows of pictures in one line: some rows of one picture, or all rows of several.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) images: Range<usize>,
    pub(super) rows: Range<usize>,
    /// Of a whole picture.
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Line {
    /// Elements from a pixel to the one below.
    fn pitch(&self) -> usize {
        self.width + 1
    }

    /// Rows of one picture and the zeros that follow it.
    fn period(&self) -> usize {
        self.rows.len() + 1
    }

    /// Elements from the first pixel to behind the last.
    pub(super) fn length(&self) -> usize {
        (self.images.len() * self.period() - 1) * self.pitch()
    }

    /// Elements of a padded channel: a row before and one behind, and what the last tile reads beyond.
    pub(super) fn channel(&self) -> usize {
        self.length().next_multiple_of(LANES) + 2 * self.pitch() + LANES
    }

    /// The distances of the pixels under the taps from the first one.
    pub(super) fn taps(&self) -> [usize; 9] {
        std::array::from_fn(|tap| tap / 3 * self.pitch() + tap % 3)
    }

    /// Where a row of a picture begins, counted from the first pixel.
    pub(super) fn start(&self, image: usize, row: usize) -> usize {
        (image * self.period() + row) * self.pitch()
    }

    /// Copies one channel, its planes `step` elements apart, with its neighbours and zeros.
    pub(super) fn pad(&self, planes: &[f32], step: usize, padded: &mut [f32]) {
        let (period, pitch) = (self.period(), self.pitch());
        for (row, to) in padded.chunks_mut(pitch).enumerate() {
            // The row behind the last picture is its own: it may be the next one of a picture that is cut.
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
