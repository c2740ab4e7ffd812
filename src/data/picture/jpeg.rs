//! JPEG, decoded to the same values as by libjpeg-turbo, with which the pictures of most models were read. A file that is
//! not whole is refused: decoders fill what is missing with grey.

use image::{DynamicImage, GrayImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat};

/// The most scans of a progressive file, each of which passes over the whole picture. Encoders write about ten.
const MOST_SCANS: usize = 100;

/// A JPEG whose header was read.
pub(super) struct Jpeg<'a> {
    decoder: Decoder<'a>,
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
        let limits = DecodeLimits { max_scans: MOST_SCANS, ..DecodeLimits::default() };
        let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(|error| error.to_string())?;
        let header = decoder.header();
        if header.precision != 8 {
            return Err(format!("it has {} bits for each value; 8 are read", header.precision));
        }
        let (width, height) = (header.width.into(), header.height.into());
        if width == 0 || height == 0 {
            return Err("its header does not say how high it is, which is not supported".to_owned());
        }
        let sampling: Vec<(u8, u8)> = header
            .components
            .iter()
            .map(|component| (component.horizontal_sampling, component.vertical_sampling))
            .collect();
        // The decoder panics on others.
        if let [cyan, others @ .., black] = &sampling[..]
            && sampling.len() == 4
            && (black != cyan || others.iter().any(|other| other.0 > cyan.0 || other.1 > cyan.1))
        {
            return Err("its four colours are sampled in a way that is not supported".to_owned());
        }
        let is_grey = sampling.len() == 1;
        decoder.set_output_format(if is_grey { PixelFormat::Grayscale } else { PixelFormat::Rgb });
        Ok(Self {
            width,
            height,
            is_for_print: sampling.len() == 4,
            exif: decoder.exif_data().map(<[u8]>::to_vec),
            profile: decoder.icc_profile().map_err(|error| error.to_string())?,
            decoder,
        })
    }

    /// Decodes the pixels.
    pub(super) fn pixels(self) -> Result<DynamicImage, String> {
        let image = self.decoder.decode_image().map_err(|error| error.to_string())?;
        let pixels = match image.pixel_format {
            PixelFormat::Grayscale => {
                GrayImage::from_raw(self.width, self.height, image.data).map(DynamicImage::from)
            }
            _ => RgbImage::from_raw(self.width, self.height, image.data).map(DynamicImage::from),
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
    use libjpeg_turbo_rs::{Subsampling, compress};

    use super::*;

    #[test]
    fn a_file_that_was_cut_off_is_not_whole() {
        let pixels: Vec<u8> = (0..40 * 30 * 3).map(|index| (index * index / 7) as u8).collect();
        let mut whole = compress(&pixels, 40, 30, PixelFormat::Rgb, 90, Subsampling::S420).expect("it fits");
        assert!(is_whole(&whole));
        for end in 0..whole.len() {
            assert!(!is_whole(&whole[..end]), "{end} of {}", whole.len());
        }
        whole.extend(b"rubbish after the end");
        assert!(is_whole(&whole));
        assert!(Jpeg::open(&whole).and_then(Jpeg::pixels).is_ok());
    }

    #[test]
    fn black_sampled_unlike_the_other_colours_is_refused() {
        let pixels = vec![9; 16 * 16 * 4];
        let mut file = compress(&pixels, 16, 16, PixelFormat::Cmyk, 90, Subsampling::S444).expect("it fits");
        assert!(Jpeg::open(&file).is_ok_and(|jpeg| jpeg.is_for_print));
        let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame header");
        // Marker, length, precision, size and count, then three bytes for each colour: its id, sampling and table.
        file[frame + 11] = 0x22;
        assert!(Jpeg::open(&file).is_err_and(|reason| reason.contains("four colours")));
    }
}
