//! `interpolate` of torch, without antialiasing: of position embeddings in DINOv2, of pictures before Inception. Pictures for
//! CLIP and DINOv2 are scaled by Pillow's filters, which are wider where a picture shrinks.

/// A kernel of torch's `interpolate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Bilinear,
    /// Keys 1981 with a = -0.75; Pillow's a is -0.5.
    Bicubic,
}

const A: f64 = -0.75;

/// Rows of pixels with some channels, scaled to `side` x `side`, as `interpolate(size=side, align_corners=False)`.
pub(super) fn interpolate(
    values: &[f32],
    (height, width): (usize, usize),
    side: usize,
    kernel: Kernel,
) -> Vec<f32> {
    let channels = values.len() / (height * width).max(1);
    let narrowed = lines(values, (height, width, channels), side, kernel);
    lines(&narrowed, (1, height, side * channels), side, kernel)
}

/// Scales the middle one of three dimensions.
fn lines(
    values: &[f32],
    (outer, length, inner): (usize, usize, usize),
    side: usize,
    kernel: Kernel,
) -> Vec<f32> {
    let taps: Vec<_> = (0..side).map(|place| kernel.taps(place, length, side)).collect();
    let mut scaled = Vec::with_capacity(outer * side * inner);
    for block in values.chunks(length * inner).take(outer) {
        for taps in &taps {
            let value = |at: usize| {
                let tap = |&(place, weight): &(usize, f64)| weight * f64::from(block[place * inner + at]);
                taps.iter().map(tap).sum::<f64>() as f32
            };
            scaled.extend((0..inner).map(value));
        }
    }
    scaled
}

impl Kernel {
    /// The pixels of a line of `length` around one of `side` places, with their weights. Pixels beyond an end are those at the
    /// end.
    fn taps(self, place: usize, length: usize, side: usize) -> Vec<(usize, f64)> {
        let centre = (place as f64 + 0.5) * length as f64 / side as f64 - 0.5;
        // torch moves only the places of the bilinear kernel to the first pixel.
        let centre = if self == Self::Bilinear { centre.max(0.0) } else { centre };
        let offsets = match self {
            Self::Bilinear => 0..=1,
            Self::Bicubic => -1..=2i64,
        };
        let tap = |offset: i64| {
            let pixel = centre.floor() as i64 + offset;
            let inside = pixel.clamp(0, length as i64 - 1) as usize;
            (inside, self.weight((centre - pixel as f64).abs()))
        };
        offsets.map(tap).collect()
    }

    /// The kernel at a distance within its reach.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => 1.0 - x,
            Self::Bicubic if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_is_that_of_torch() {
        // Pixel by pixel, colour by colour: (37 i mod 256) / 255, 4 rows of 5.
        let values: Vec<f32> = (0..60).map(|index| ((index * 37) % 256) as f32 / 255.0).collect();
        // torch 2.11: interpolate(x[None], size=(side, side), mode="bicubic")[0]
        for (side, first, last, sum) in [
            (3, 0.14213215121439526, 0.39287416955808435, 11.60564028080368),
            (7, -0.05099575544503514, 0.5882481907798531, 68.49477365290142),
        ] {
            let scaled = interpolate(&values, (4, 5), side, Kernel::Bicubic);
            let close = |found: f32, needed: f64| {
                assert!((f64::from(found) - needed).abs() < 1e-4, "{found} {needed}");
            };
            close(scaled[0], first);
            close(scaled[scaled.len() - 1], last);
            close(scaled.iter().sum(), sum);
        }
    }
}
