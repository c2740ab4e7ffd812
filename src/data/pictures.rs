//! Pictures as files and as tensors.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::finite::check_result;
use super::{DataError, prompts};
use crate::base::files;
use crate::model::Part;
use crate::model::vae::Autoencoder;

/// Bytes of pixels per byte of the file. Deflate shrinks at most 1032 times, and JPEG's blocks of one colour, with a bit for
/// each block and a quarter of the blocks for the colours, about 1400 times.
const MOST_EXPANSION: u64 = 2048;

/// How many times longer than the other a side may be. Memory for scaling grows with it: 1x10,000,000 pixels took 9.8 GB.
const MOST_RATIO: u32 = 64;

/// A picture file and its caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionedFile {
    /// The picture.
    pub path: PathBuf,
    /// The text of the `.txt` file of the same name.
    pub caption: String,
}

/// The PNG and JPEG files of a folder in the order of their names, each with its caption. Hidden files, folders and all
/// other files are no samples.
pub fn list(folder: &Path) -> Result<Vec<CaptionedFile>, DataError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::file(folder))? {
        let path = entry.map_err(DataError::file(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        if hidden || !matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
            continue;
        }
        if std::fs::metadata(&path).map_err(DataError::file(&path))?.is_file() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(DataError::NoPictures { path: folder.to_owned() });
    }
    paths.sort();
    let captioned = |path: PathBuf| {
        let caption = prompts::read_text(&path.with_extension("txt"))?.trim().to_owned();
        Ok(CaptionedFile { path, caption })
    };
    paths.into_iter().map(captioned).collect()
}

/// Reads a PNG or JPEG file, whatever its extension.
pub fn read(path: &Path) -> Result<RgbImage, DataError> {
    decode(&std::fs::read(path).map_err(DataError::file(path))?, path)
}

/// Decodes a PNG or JPEG file; `path` is its name in errors. The decoder's limits apply (512 MiB), and a small file cannot
/// claim to be a large picture.
pub fn decode(bytes: &[u8], path: &Path) -> Result<RgbImage, DataError> {
    let bad = |source| DataError::Picture { path: path.to_owned(), source };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(DataError::file(path))?;
    let decoder = reader.into_decoder().map_err(bad)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MOST_EXPANSION * bytes.len() as u64 {
        return Err(DataError::Claims { path: path.to_owned(), width, height, bytes: bytes.len() });
    }
    if width.max(height) / width.min(height).max(1) > MOST_RATIO {
        return Err(DataError::Strip { path: path.to_owned(), width, height });
    }
    Ok(DynamicImage::from_decoder(decoder).map_err(bad)?.into_rgb8())
}

/// Writes a PNG atomically.
pub fn write(path: &Path, picture: &RgbImage) -> Result<(), DataError> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|source| DataError::Picture { path: path.to_owned(), source })?;
    files::write_atomic(path, bytes.get_ref()).map_err(DataError::file(path))
}

/// Scales a picture to cover `height` x `width` exactly on its shorter side, and crops it at the centre.
pub fn fit(picture: &RgbImage, height: usize, width: usize) -> RgbImage {
    let (target_width, target_height) = (width as u32, height as u32);
    if picture.dimensions() == (target_width, target_height) {
        return picture.clone();
    }
    let scale = f64::max(
        f64::from(target_width) / f64::from(picture.width()),
        f64::from(target_height) / f64::from(picture.height()),
    );
    let side = |length: u32, at_least: u32| ((f64::from(length) * scale).round() as u32).max(at_least);
    let (scaled_width, scaled_height) =
        (side(picture.width(), target_width), side(picture.height(), target_height));
    let scaled = imageops::resize(picture, scaled_width, scaled_height, FilterType::Lanczos3);
    let (left, top) = ((scaled_width - target_width) / 2, (scaled_height - target_height) / 2);
    imageops::crop_imm(&scaled, left, top, target_width, target_height).to_image()
}

/// A picture as [3, h, w] in -1..1.
pub fn to_tensor(picture: &RgbImage, device: &Device) -> candle_core::Result<Tensor> {
    let (width, height) = picture.dimensions();
    let values: Vec<f32> = picture.as_raw().iter().map(|&value| f32::from(value) / 127.5 - 1.0).collect();
    Tensor::from_vec(values, (height as usize, width as usize, 3), device)?.permute((2, 0, 1))?.contiguous()
}

/// Decodes latents [b, c, h, w] into pictures. `of` names a row, such as by its prompt; a picture with a number that is
/// not finite is an error and not black.
pub fn paint(
    vae: &Autoencoder,
    latents: &Tensor,
    of: impl FnOnce(usize) -> String,
) -> Result<Vec<RgbImage>, DataError> {
    let pictures = vae.decode(latents)?.to_device(&Device::Cpu)?;
    check_result(Part::Vae, &pictures, of)?;
    (0..latents.dim(0)?).map(|row| Ok(from_tensor(&pictures.get(row)?)?)).collect()
}

/// A tensor [3, h, w] of finite numbers as a picture: -1..1 becomes 0..255, values outside are clamped.
fn from_tensor(tensor: &Tensor) -> candle_core::Result<RgbImage> {
    let (colours, height, width) = tensor.dims3()?;
    if colours != 3 {
        candle_core::bail!("a picture has 3 colours, not {colours}")
    }
    let values = tensor.to_dtype(DType::F32)?.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
    // `as u8` saturates.
    let bytes = values.into_iter().map(|value| ((value + 1.0) * 127.5).round() as u8).collect();
    Ok(RgbImage::from_raw(width as u32, height as u32, bytes).expect("three bytes per pixel were made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkers(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([(40 * x) as u8, (40 * y) as u8, 255]))
    }

    #[test]
    fn a_picture_survives_file_and_tensor() -> Result<(), DataError> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("b.png");
        let picture = checkers(5, 3);
        write(&path, &picture)?;
        std::fs::write(path.with_extension("txt"), " a caption\n").expect("ours");
        let read = read(&path)?;
        assert_eq!(read, picture);
        let tensor = to_tensor(&read, &Device::Cpu)?;
        assert_eq!(tensor.dims(), [3, 3, 5]);
        assert_eq!(from_tensor(&tensor)?, picture);
        assert_eq!(list(folder.path())?, [CaptionedFile { path, caption: "a caption".to_owned() }]);
        Ok(())
    }

    #[test]
    fn values_out_of_range_are_clamped() -> candle_core::Result<()> {
        let tensor = Tensor::new(&[[[-7f32]], [[0.0]], [[9.0]]], &Device::Cpu)?;
        assert_eq!(from_tensor(&tensor)?.get_pixel(0, 0).0, [0, 128, 255]);
        Ok(())
    }

    #[test]
    fn fitting_keeps_the_middle() {
        assert_eq!(fit(&checkers(6, 4), 4, 6), checkers(6, 4));
        let wide = fit(&checkers(12, 4), 4, 4);
        assert_eq!(wide.get_pixel(0, 0).0[0], 160);
        assert_eq!(fit(&checkers(1, 100), 8, 8).dimensions(), (8, 8));
    }

    #[test]
    fn hostile_folders_are_errors() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        assert!(matches!(list(folder.path()), Err(DataError::NoPictures { .. })));
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nnot a picture").expect("ours");
        assert!(matches!(read(&path), Err(DataError::Picture { .. })));
        let strip = folder.path().join("strip.png");
        write(&strip, &RgbImage::new(2, 131)).expect("ours");
        assert!(matches!(super::read(&strip), Err(DataError::Strip { width: 2, height: 131, .. })));
        write(&strip, &RgbImage::new(2, 128)).expect("ours");
        assert!(super::read(&strip).is_ok());
        std::fs::remove_file(&strip).expect("ours");
        let no_caption = list(folder.path()).expect_err("there is no a.txt");
        assert!(no_caption.to_string().contains("a.txt"), "{no_caption}");
    }
}
