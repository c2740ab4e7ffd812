//! Pillow's bicubic filter, by which CLIP's pictures are scaled: Keys 1981 with a = -1/2, over the whole footprint of an output
//! pixel, in two passes that each round to bytes.

use candle_core::{Error, Result};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

/// A picture of the asked size.
pub(in crate::model) fn bicubic(picture: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    if picture.dimensions() == (width, height) {
        return Ok(picture.clone());
    }
    let source = ImageRef::new(picture.width(), picture.height(), picture.as_raw(), PixelType::U8x3);
    let source = source.map_err(Error::wrap)?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    Resizer::new().resize(&source, &mut target, &options).map_err(Error::wrap)?;
    Ok(RgbImage::from_raw(width, height, target.into_vec()).expect("the target has three bytes per pixel"))
}
