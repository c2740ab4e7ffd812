//! Crops a picture to the shape of the target and scales it. The crop comes first, so that a very long picture costs no
//! more than the part of it that is used.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use image::RgbImage;

/// A picture of the asked size.
pub struct Fitted {
    /// The pixels.
    pub picture: RgbImage,
    /// Rows and columns cut away at the top and the left, in pixels of the scaled picture.
    pub crop: (u32, u32),
}

/// Crops a picture at its centre to the shape of `height` x `width` and scales it to that size by Lanczos' filter with
/// three lobes.
pub fn fit(picture: &RgbImage, (height, width): (usize, usize)) -> Result<Fitted, ResizeError> {
    let (target_width, target_height) = (width as u32, height as u32);
    let (source_width, source_height) = picture.dimensions();
    if (source_width, source_height) == (target_width, target_height) {
        return Ok(Fitted { picture: picture.clone(), crop: (0, 0) });
    }
    let (from_width, from_height) = (f64::from(source_width), f64::from(source_height));
    let scale = f64::max(f64::from(target_width) / from_width, f64::from(target_height) / from_height);
    let kept_width = (f64::from(target_width) / scale).min(from_width);
    let kept_height = (f64::from(target_height) / scale).min(from_height);
    let (left, top) = ((from_width - kept_width) / 2.0, (from_height - kept_height) / 2.0);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
        left,
        top,
        kept_width,
        kept_height,
    );
    let source = ImageRef::new(source_width, source_height, picture.as_raw(), PixelType::U8x3)
        .expect("a picture has three bytes per pixel");
    let mut target = Image::new(target_width, target_height, PixelType::U8x3);
    Resizer::new().resize(&source, &mut target, &options)?;
    let picture = RgbImage::from_raw(target_width, target_height, target.into_vec())
        .expect("the target has three bytes per pixel");
    Ok(Fitted { picture, crop: ((top * scale).round() as u32, (left * scale).round() as u32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fitting_keeps_the_middle() -> Result<(), ResizeError> {
        let checkers = |width, height| {
            RgbImage::from_fn(width, height, |x, y| image::Rgb([(20 * x) as u8, (20 * y) as u8, 255]))
        };
        assert_eq!(fit(&checkers(6, 4), (4, 6))?.picture, checkers(6, 4));
        let wide = fit(&checkers(12, 4), (4, 4))?;
        assert_eq!((wide.picture.get_pixel(0, 0).0, wide.crop), ([80, 0, 255], (0, 4)));
        let tall = fit(&checkers(4, 12), (2, 2))?;
        assert_eq!((tall.picture.dimensions(), tall.crop), ((2, 2), (2, 0)));
        Ok(())
    }

    #[test]
    fn a_long_strip_costs_nothing() -> Result<(), ResizeError> {
        let strip = RgbImage::from_fn(30_000, 1, |x, _| image::Rgb([u8::from(x > 15_000), 9, 9]));
        let fitted = fit(&strip, (512, 512))?;
        assert_eq!(fitted.picture.dimensions(), (512, 512));
        assert!(fitted.picture.pixels().all(|pixel| pixel.0[1..] == [9, 9]));
        Ok(())
    }
}
