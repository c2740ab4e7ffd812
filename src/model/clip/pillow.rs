//! Pillow's bicubic filter, by which CLIP's pictures are scaled: Keys 1981 with a = -1/2, over the whole footprint of an output
//! pixel. To the bit: first along rows, then along columns, with weights of 22 binary places and bytes in between
//! (`ImagingResample` of Pillow). Other libraries go along columns first, which shows at hard edges.

use image::RgbImage;

/// Binary places of a weight.
const PLACES: u32 = 22;
/// Reach of the filter in output pixels, or input pixels where the picture grows.
const REACH: f64 = 2.0;

/// A picture of the asked size.
pub(in crate::model) fn bicubic(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
    let (width, height) = (width as usize, height as usize);
    let mut bytes = picture.as_raw().clone();
    if width != from_width {
        bytes = lines(&bytes, (from_height, from_width, 3), width);
    }
    if height != from_height {
        bytes = lines(&bytes, (1, from_height, 3 * width), height);
    }
    RgbImage::from_raw(width as u32, height as u32, bytes).expect("three bytes per pixel were made")
}

/// Scales the middle one of three dimensions.
fn lines(bytes: &[u8], (outer, length, inner): (usize, usize, usize), side: usize) -> Vec<u8> {
    let windows: Vec<_> = (0..side).map(|place| window(place, length, side)).collect();
    let mut scaled = Vec::with_capacity(outer * side * inner);
    let mut sums = vec![0i64; inner];
    for block in bytes.chunks_exact(length * inner).take(outer) {
        for (first, weights) in &windows {
            sums.fill(1 << (PLACES - 1));
            for (row, weight) in block[first * inner..].chunks_exact(inner).zip(weights) {
                sums.iter_mut().zip(row).for_each(|(sum, byte)| *sum += weight * i64::from(*byte));
            }
            scaled.extend(sums.iter().map(|sum| (sum >> PLACES).clamp(0, 255) as u8));
        }
    }
    scaled
}

/// The first pixel of a line of `length` around one of `side` places, and the weights from there.
fn window(place: usize, length: usize, side: usize) -> (usize, Vec<i64>) {
    let scale = length as f64 / side as f64;
    let wide = scale.max(1.0);
    let (centre, reach) = ((place as f64 + 0.5) * scale, REACH * wide);
    // As Pillow rounds; a cast cuts off, and what is below 0 becomes 0.
    let first = (centre - reach + 0.5) as usize;
    let end = ((centre + reach + 0.5) as usize).min(length);
    let weights: Vec<f64> = (first..end).map(|pixel| keys((pixel as f64 - centre + 0.5) / wide)).collect();
    let sum: f64 = weights.iter().sum();
    let fixed = |weight: &f64| (weight / sum * f64::from(1 << PLACES)).round() as i64;
    (first, weights.iter().map(fixed).collect())
}

/// Keys' kernel with a = -1/2.
fn keys(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}
