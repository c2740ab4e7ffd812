//! Decodes PNG, JPEG and WebP as they lie in real data sets: turned by EXIF, with colour profiles, 16 bits, palettes and
//! alpha. A file is judged by its first bytes, whatever its name says. What cannot be decoded whole is refused.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::colour;
use super::exif;
use super::jpeg::{self, Jpeg};
use super::room::Room;

/// Bytes of pixels per byte of a PNG or JPEG file. Deflate shrinks at most 1032 times, and JPEG's blocks of one colour,
/// with a bit for each block and a quarter of the blocks for the colours, about 1400 times.
const MOST_EXPANSION: u64 = 2048;

/// The most pixels of a picture: the limit of Pillow, which Python's loaders refuse too.
const MOST_PIXELS: u64 = 178_956_970;

/// What the first bytes of files of other formats are, at which place, and the format's name.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
];

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Upright, in sRGB, opaque.
    pub picture: RgbImage,
    /// What of the file was ignored.
    pub notes: Vec<&'static str>,
}

/// Why a file gives no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// The picture is not all there.
    #[error("it is cut off")]
    CutOff,
    /// A format that is known but not read.
    #[error("it is a picture in {0}, which is not supported; convert it to PNG, JPEG or WebP")]
    Format(&'static str),
    /// Something else.
    #[error("it is not a PNG, JPEG or WebP picture")]
    Unknown,
    /// Too large.
    #[error("it is {width}x{height} pixels; at most {MOST_PIXELS} pixels are read")]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// A file too small for the picture that it claims to hold.
    #[error("it claims to be a picture of {width}x{height} pixels, but has only {bytes} bytes")]
    Claims {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// The size of the file.
        bytes: usize,
    },
    /// The decoder's error.
    #[error("{0}")]
    Damaged(String),
    /// The decoder panicked.
    #[error("its decoder fails on it, which is a bug")]
    Panicked,
}

/// Decodes a file. Transparent pixels show the background; `room` limits what is decoded at the same time.
pub fn decode(bytes: &[u8], background: [u8; 3], room: &Room) -> Result<Decoded, Undecodable> {
    unless_panicked(|| decode_any(bytes, background, room))
}

/// A decoder's bug costs one picture, not the work on all others.
fn unless_panicked<T>(decode: impl FnOnce() -> Result<T, Undecodable>) -> Result<T, Undecodable> {
    // Nothing that the decoder changed is used after a panic.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or(Err(Undecodable::Panicked))
}

fn decode_any(bytes: &[u8], background: [u8; 3], room: &Room) -> Result<Decoded, Undecodable> {
    match bytes {
        [] => Err(Undecodable::Empty),
        [0xff, 0xd8, ..] => of_jpeg(bytes, background, room),
        [0x89, b'P', b'N', b'G', ..] => of_format(bytes, ImageFormat::Png, background, room),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            of_format(bytes, ImageFormat::WebP, background, room)
        }
        _ => {
            let is = |(at, start, _): &&(usize, &[u8], _)| {
                bytes.get(*at..).is_some_and(|rest| rest.starts_with(start))
            };
            Err(OTHERS.iter().find(is).map_or(Undecodable::Unknown, |(.., name)| Undecodable::Format(name)))
        }
    }
}

fn of_jpeg(bytes: &[u8], background: [u8; 3], room: &Room) -> Result<Decoded, Undecodable> {
    if !jpeg::is_whole(bytes) {
        return Err(Undecodable::CutOff);
    }
    let damaged = Undecodable::Damaged;
    let jpeg = Jpeg::open(bytes).map_err(damaged)?;
    let needed = 3 * u64::from(jpeg.width) * u64::from(jpeg.height);
    check_size((jpeg.width, jpeg.height), needed, Some(bytes.len()))?;
    // Progressive files keep all coefficients, with 16 bits each, until the end.
    let _taken = room.take(4 * needed);
    let (exif, mut profile, mut notes) = (jpeg.exif.clone(), jpeg.profile.clone(), Vec::new());
    if jpeg.is_for_print && profile.take().is_some() {
        notes.push(colour::UNUSED);
    }
    let pixels = jpeg.pixels().map_err(damaged)?;
    Ok(finished(pixels, exif.as_deref(), profile.as_deref(), background, notes))
}

fn of_format(
    bytes: &[u8],
    format: ImageFormat,
    background: [u8; 3],
    room: &Room,
) -> Result<Decoded, Undecodable> {
    let damaged = |error: image::ImageError| match &error {
        image::ImageError::IoError(inner) if inner.kind() == std::io::ErrorKind::UnexpectedEof => {
            Undecodable::CutOff
        }
        _ => Undecodable::Damaged(error.to_string()),
    };
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    // WebP has no such bound: a picture of one colour is a few bytes.
    let held = (format == ImageFormat::Png).then_some(bytes.len());
    check_size(decoder.dimensions(), decoder.total_bytes(), held)?;
    let _taken = room.take(2 * decoder.total_bytes());
    // A block that cannot be read is no reason to lose the picture.
    let exif = decoder.exif_metadata().unwrap_or_default();
    let profile = decoder.icc_profile().unwrap_or_default();
    let pixels = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok(finished(pixels, exif.as_deref(), profile.as_deref(), background, Vec::new()))
}

fn check_size((width, height): (u32, u32), pixel_bytes: u64, held: Option<usize>) -> Result<(), Undecodable> {
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Undecodable::TooLarge { width, height });
    }
    match held {
        Some(bytes) if pixel_bytes > MOST_EXPANSION * bytes as u64 => {
            Err(Undecodable::Claims { width, height, bytes })
        }
        _ => Ok(()),
    }
}

fn finished(
    mut pixels: DynamicImage,
    exif: Option<&[u8]>,
    profile: Option<&[u8]>,
    background: [u8; 3],
    mut notes: Vec<&'static str>,
) -> Decoded {
    match exif.map(exif::orientation) {
        Some(Err(exif::Corrupt)) => notes.push("its EXIF block is corrupt and was ignored"),
        Some(Ok(turned)) => {
            pixels.apply_orientation(Orientation::from_exif(turned).unwrap_or(Orientation::NoTransforms));
        }
        None => {}
    }
    let (picture, note) = colour::to_rgb(pixels, profile, background);
    notes.extend(note);
    Decoded { picture, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_reason_to_skip_the_picture() {
        let room = Room::new(8);
        let broken = || -> Result<Decoded, Undecodable> {
            let _part = room.take(8);
            panic!("a bug of a decoder")
        };
        assert_eq!(unless_panicked(broken), Err(Undecodable::Panicked));
        // The room is free again: this would wait for ever.
        drop(room.take(8));
    }
}
