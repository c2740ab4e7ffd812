//! Pixels of any kind as 8-bit RGB in sRGB on an opaque background: colour profiles applied, alpha blended.

use image::{DynamicImage, RgbImage};
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

/// A colour profile that the picture has but that cannot be applied.
pub(super) const UNUSED: &str = "its colour profile cannot be used and was ignored";

/// Converts pixels, with the note [`UNUSED`] if the profile could not be applied.
pub(super) fn to_rgb(
    pixels: DynamicImage,
    profile: Option<&[u8]>,
    background: [u8; 3],
) -> (RgbImage, Option<&'static str>) {
    let Some(profile) = profile else { return (flat(pixels, background), None) };
    // 16 bits become 8 first: no rounding of sRGB's curve then reaches one level.
    let pixels = in_bytes(pixels);
    match ColorProfile::new_from_slice(profile).ok().and_then(|profile| in_srgb(&pixels, &profile)) {
        Some(converted) => (flat(converted, background), None),
        None => (flat(pixels, background), Some(UNUSED)),
    }
}

/// The same pixels with 8 bits for each number.
fn in_bytes(pixels: DynamicImage) -> DynamicImage {
    let colour = pixels.color();
    match (colour.has_color(), colour.has_alpha()) {
        (true, true) => pixels.into_rgba8().into(),
        (true, false) => pixels.into_rgb8().into(),
        (false, true) => pixels.into_luma_alpha8().into(),
        (false, false) => pixels.into_luma8().into(),
    }
}

/// `None` if the profile is not for such pixels.
fn in_srgb(pixels: &DynamicImage, profile: &ColorProfile) -> Option<DynamicImage> {
    let colour = pixels.color();
    let (from, to) = match (profile.color_space, colour.has_color(), colour.has_alpha()) {
        (DataColorSpace::Rgb, true, false) => (Layout::Rgb, Layout::Rgb),
        (DataColorSpace::Rgb, true, true) => (Layout::Rgba, Layout::Rgba),
        (DataColorSpace::Gray, false, false) => (Layout::Gray, Layout::Rgb),
        (DataColorSpace::Gray, false, true) => (Layout::GrayAlpha, Layout::Rgba),
        _ => return None,
    };
    let transform = profile
        .create_transform_8bit(from, &ColorProfile::new_srgb(), to, TransformOptions::default())
        .ok()?;
    let (width, height) = (pixels.width(), pixels.height());
    let mut converted = DynamicImage::new(
        width,
        height,
        if colour.has_alpha() { image::ColorType::Rgba8 } else { image::ColorType::Rgb8 },
    );
    let target: &mut [u8] = match &mut converted {
        DynamicImage::ImageRgb8(pixels) => pixels,
        DynamicImage::ImageRgba8(pixels) => pixels,
        _ => return None,
    };
    transform.transform(pixels.as_bytes(), target).ok()?;
    Some(converted)
}

/// Blends alpha over the background.
fn flat(pixels: DynamicImage, background: [u8; 3]) -> RgbImage {
    if !pixels.color().has_alpha() {
        return pixels.into_rgb8();
    }
    let pixels = pixels.into_rgba8();
    let (width, height) = pixels.dimensions();
    let mut flat = RgbImage::new(width, height);
    for (target, source) in flat.pixels_mut().zip(pixels.pixels()) {
        let alpha = u32::from(source.0[3]);
        for ((target, &over), under) in target.0.iter_mut().zip(&source.0).zip(background) {
            let sum = u32::from(over) * alpha + u32::from(under) * (255 - alpha);
            *target = ((sum + 127) / 255) as u8;
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use image::{GrayAlphaImage, LumaA, Rgba, RgbaImage};

    use super::*;

    #[test]
    fn hidden_colours_are_not_seen() {
        let pixels = RgbaImage::from_pixel(1, 1, Rgba([0, 0, 0, 0]));
        let (seen, note) = to_rgb(pixels.into(), None, [255, 254, 3]);
        assert_eq!((seen.get_pixel(0, 0).0, note), ([255, 254, 3], None));
        let half = GrayAlphaImage::from_pixel(1, 1, LumaA([0, 128]));
        assert_eq!(to_rgb(half.into(), None, [255; 3]).0.get_pixel(0, 0).0, [127; 3]);
    }

    #[test]
    fn a_profile_that_does_not_fit_is_noted() {
        let pixels = RgbImage::from_pixel(2, 1, image::Rgb([9, 8, 7]));
        let (same, note) = to_rgb(pixels.clone().into(), Some(b"no profile"), [0; 3]);
        assert_eq!((same, note), (pixels, Some(UNUSED)));
    }
}
