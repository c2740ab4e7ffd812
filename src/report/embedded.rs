//! Pictures inside the page, which is one file of a few megabytes. Pictures that take too much as PNG are embedded as
//! smaller JPEG; the files of the run stay as they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::RgbImage;
use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

use crate::data::picture::fit;

/// The bytes of all pictures of a page, as text. With 24 pictures of each of three models, the page stays below 3 MB.
pub(super) const ROOM: usize = 2_400_000;

/// Longest side in pixels and quality of a JPEG, from the best to the one that is taken if nothing else has room.
const SMALLER: [(u32, u8); 5] = [(512, 85), (384, 80), (288, 78), (192, 75), (128, 65)];

/// PNGs as sources of `<img>` elements that together take about `room` bytes.
pub(super) fn sources(pngs: Vec<Option<Vec<u8>>>, room: usize) -> Vec<Option<String>> {
    let source = |kind: &str, bytes: &[u8]| format!("data:image/{kind};base64,{}", BASE64.encode(bytes));
    let size: usize = pngs.iter().flatten().map(|png| png.len().div_ceil(3) * 4).sum();
    if size <= room {
        return pngs.into_iter().map(|png| png.map(|png| source("png", &png))).collect();
    }
    let decoded = |png: &Vec<u8>| {
        image::load_from_memory(png).ok().and_then(|all| shrunk(&all.to_rgb8(), SMALLER[0].0))
    };
    let pictures: Vec<Option<RgbImage>> = pngs.iter().map(|png| png.as_ref().and_then(decoded)).collect();
    let mut all = Vec::new();
    for (side, quality) in SMALLER {
        let jpeg = |picture: &RgbImage| {
            let small = shrunk(picture, side)?;
            let (width, height) = (small.width() as usize, small.height() as usize);
            let bytes =
                compress(small.as_raw(), width, height, PixelFormat::Rgb, quality, Subsampling::S420).ok()?;
            Some(source("jpeg", &bytes))
        };
        all = pictures.iter().map(|picture| picture.as_ref().and_then(jpeg)).collect();
        if all.iter().flatten().map(String::len).sum::<usize>() <= room {
            break;
        }
    }
    all
}

/// Whether a PNG is so small that a browser should show its pixels as squares.
pub(super) fn is_tiny(png: &[u8]) -> bool {
    let width = png.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    width.is_some_and(|width| width <= 128)
}

/// A picture whose longest side is at most `side`.
fn shrunk(picture: &RgbImage, side: u32) -> Option<RgbImage> {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(longest)).max(1) as usize;
    match longest <= side {
        true => Some(picture.clone()),
        false => fit(picture, (scaled(height), scaled(width))).ok().map(|fitted| fitted.picture),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A picture that PNG cannot make small.
    fn png(side: u32) -> Vec<u8> {
        let pixel = |x: u32, y: u32| (x * 977 + y * 613).wrapping_mul(2_654_435_761) >> 13;
        let picture = RgbImage::from_fn(side, side, |x, y| image::Rgb([pixel(x, y) as u8, y as u8, 90]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
    }

    #[test]
    fn small_pictures_are_embedded_as_they_are() {
        let one = png(32);
        let all = sources(vec![Some(one.clone()), None], ROOM);
        assert!(is_tiny(&one) && !is_tiny(&png(200)));
        assert_eq!(all, [Some(format!("data:image/png;base64,{}", BASE64.encode(one))), None]);
    }

    #[test]
    fn large_pictures_keep_within_the_room() {
        let pictures = vec![Some(png(600)); 6];
        let all = sources(pictures, 200_000);
        assert!(all.iter().flatten().map(String::len).sum::<usize>() <= 200_000);
        assert!(all.iter().flatten().all(|one| one.starts_with("data:image/jpeg;base64,/9j/")), "no JPEG");
    }

    #[test]
    fn a_picture_keeps_its_shape() {
        let small = shrunk(&RgbImage::new(1024, 512), 128).expect("a picture");
        assert_eq!(small.dimensions(), (128, 64));
        assert_eq!(shrunk(&RgbImage::new(20, 30), 128).map(|one| one.dimensions()), Some((20, 30)));
    }
}
