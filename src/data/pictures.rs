//! Pictures as files and as tensors.

use std::io::Cursor;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::{ImageFormat, RgbImage};

use super::DataError;
use super::finite::check_result;
use super::picture::{self, Room};
use crate::base::files;
use crate::model::Part;
use crate::model::vae::Autoencoder;

/// What transparent pixels show.
const WHITE: [u8; 3] = [255; 3];

/// Reads a PNG, JPEG or WebP file, whatever its extension.
pub fn read(path: &Path) -> Result<RgbImage, DataError> {
    decode(&std::fs::read(path).map_err(DataError::file(path))?, path)
}

/// Decodes a PNG, JPEG or WebP file; `path` is its name in errors.
pub fn decode(bytes: &[u8], path: &Path) -> Result<RgbImage, DataError> {
    let decoded = picture::decode(bytes, WHITE, &Room::new(u64::MAX));
    let bad = |reason| DataError::Picture { path: path.to_owned(), reason };
    Ok(decoded.map_err(|reason| bad(reason.to_string()))?.picture)
}

/// Writes a PNG atomically.
pub fn write(path: &Path, picture: &RgbImage) -> Result<(), DataError> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|source| DataError::Picture { path: path.to_owned(), reason: source.to_string() })?;
    files::write_atomic(path, bytes.get_ref()).map_err(DataError::file(path))
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
        let read = read(&path)?;
        assert_eq!(read, picture);
        let tensor = to_tensor(&read, &Device::Cpu)?;
        assert_eq!(tensor.dims(), [3, 3, 5]);
        assert_eq!(from_tensor(&tensor)?, picture);
        Ok(())
    }

    #[test]
    fn values_out_of_range_are_clamped() -> candle_core::Result<()> {
        let tensor = Tensor::new(&[[[-7f32]], [[0.0]], [[9.0]]], &Device::Cpu)?;
        assert_eq!(from_tensor(&tensor)?.get_pixel(0, 0).0, [0, 128, 255]);
        Ok(())
    }

    #[test]
    fn hostile_files_are_errors() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nnot a picture").expect("ours");
        assert!(matches!(read(&path), Err(DataError::Picture { .. })));
    }
}
