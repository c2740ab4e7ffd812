//! JPEG. The decoder fills what is missing from a file with grey; a picture that is not whole is refused here instead.

use image::{DynamicImage, GrayImage, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// A JPEG whose header was read.
pub(super) struct Jpeg<'a> {
    decoder: JpegDecoder<ZCursor<&'a [u8]>>,
    pub(super) width: u32,
    pub(super) height: u32,
    /// CMYK or YCCK, as printers use them.
    pub(super) is_for_print: bool,
    pub(super) exif: Option<Vec<u8>>,
    pub(super) profile: Option<Vec<u8>>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        // Strict: a fault inside the compressed data is an error.
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(usize::from(u16::MAX))
            .set_max_height(usize::from(u16::MAX));
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(|error| error.to_string())?;
        let colours = decoder.input_colorspace();
        let target = if colours == Some(ColorSpace::Luma) { ColorSpace::Luma } else { ColorSpace::RGB };
        decoder.set_options(options.jpeg_set_out_colorspace(target));
        let (width, height) = decoder.info().map_or((0, 0), |info| (info.width, info.height));
        Ok(Self {
            width: width.into(),
            height: height.into(),
            is_for_print: matches!(colours, Some(ColorSpace::CMYK | ColorSpace::YCCK)),
            exif: decoder.exif().cloned(),
            profile: decoder.icc_profile(),
            decoder,
        })
    }

    /// Decodes the pixels.
    pub(super) fn pixels(mut self) -> Result<DynamicImage, String> {
        let bytes = self.decoder.decode().map_err(|error| error.to_string())?;
        let pixels = match self.decoder.output_colorspace() {
            Some(ColorSpace::Luma) => {
                GrayImage::from_raw(self.width, self.height, bytes).map(DynamicImage::from)
            }
            _ => RgbImage::from_raw(self.width, self.height, bytes).map(DynamicImage::from),
        };
        pixels.ok_or_else(|| "the decoder gives pixels of another size than the header says".to_owned())
    }
}

/// Whether the file holds the marker that ends the picture. A copy that was cut off lacks it; what stands after it does
/// not matter. A preview inside the file ends inside its own segment.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // A marker is 0xff and a byte that is neither 0 (a data byte 0xff) nor 0xff (padding).
        let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) else {
            return false;
        };
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xd9) => return true,
            // Data bytes, padding and restart markers have no length.
            Some(0 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(&[high, low]) => at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_file_that_was_cut_off_is_not_whole() {
        let picture =
            RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8]));
        let mut whole = Cursor::new(Vec::new());
        picture.write_to(&mut whole, image::ImageFormat::Jpeg).expect("memory takes it");
        let mut whole = whole.into_inner();
        assert!(is_whole(&whole));
        for end in 0..whole.len() {
            assert!(!is_whole(&whole[..end]), "{end} of {}", whole.len());
        }
        whole.extend(b"rubbish after the end");
        assert!(is_whole(&whole));
        assert!(Jpeg::open(&whole).and_then(Jpeg::pixels).is_ok());
    }
}
