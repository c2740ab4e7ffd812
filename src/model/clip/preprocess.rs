//! Preprocessing of pictures for CLIP: resize the short side, crop the centre, normalise the colours.

use candle_core::{Device, Tensor};
use image::RgbImage;
use image::imageops;
use serde::Deserialize;
use serde_json::Value;

use super::pillow::bicubic;

/// `preprocessor_config.json`; a key that is missing has the default of transformers' `CLIPImageProcessor`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipPreprocess {
    size: Value,
    crop_size: Value,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    do_resize: bool,
    do_center_crop: bool,
    do_rescale: bool,
    do_normalize: bool,
    resample: u64,
    rescale_factor: f64,
    /// Whether the crop begins at the nearest pixel, a half at the even one, as in torchvision. Transformers rounds down.
    #[serde(skip)]
    crops_at_nearest: bool,
}

impl Default for ClipPreprocess {
    fn default() -> Self {
        Self {
            size: Value::Null,
            crop_size: Value::Null,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
            do_resize: true,
            do_center_crop: true,
            do_rescale: true,
            do_normalize: true,
            resample: BICUBIC,
            rescale_factor: 1.0 / 255.0,
            crops_at_nearest: false,
        }
    }
}

/// Pillow's number of the bicubic filter.
const BICUBIC: u64 = 3;

impl ClipPreprocess {
    /// The preprocessing of OpenAI's CLIP by torchvision, for a tower that reads pictures of this side.
    pub(in crate::model) fn of_side(side: usize) -> Self {
        Self { size: side.into(), crop_size: side.into(), crops_at_nearest: true, ..Self::default() }
    }

    /// The same with other colours, where they are given.
    pub(in crate::model) fn coloured(self, mean: Option<[f64; 3]>, std: Option<[f64; 3]>) -> Self {
        let (image_mean, image_std) = (mean.unwrap_or(self.image_mean), std.unwrap_or(self.image_std));
        Self { image_mean, image_std, ..self }
    }

    /// Fails, with the reason, if pictures cannot be prepared like this for a tower that takes `image_size` pixels a side.
    pub(super) fn check(&self, image_size: usize) -> Result<(), String> {
        let flags = [
            ("do_resize", self.do_resize),
            ("do_center_crop", self.do_center_crop),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
        ];
        if let Some((name, _)) = flags.into_iter().find(|(_, on)| !on) {
            return Err(format!("`{name}` is false; it must be true"));
        }
        if self.resample != BICUBIC {
            return Err(format!("`resample` is {}; it must be {BICUBIC}, bicubic", self.resample));
        }
        if (self.rescale_factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(format!("`rescale_factor` is {}; it must be 1/255", self.rescale_factor));
        }
        if self.image_std.contains(&0.0) {
            return Err("`image_std` holds 0".to_owned());
        }
        let (size, crop) = (&self.size, &self.crop_size);
        let short = side_of(size, &["shortest_edge"])
            .ok_or_else(|| format!("`size` is {size}; it must be {{\"shortest_edge\": {image_size}}}"))?;
        let side = side_of(crop, &["height", "width"]).filter(|&side| side as usize == image_size);
        if side.is_none() {
            return Err(format!(
                "pictures are cropped to {}, but the image tower takes {image_size} pixels a side",
                if crop.is_null() { Value::from(OPENAI) } else { crop.clone() }
            ));
        }
        if (short as usize) < image_size {
            return Err(format!("`size` is {short}, less than the crop of {image_size}"));
        }
        Ok(())
    }

    /// A picture of any size -> [3, side, side] f32 on the CPU.
    pub fn prepare(&self, picture: &RgbImage) -> candle_core::Result<Tensor> {
        let side = side_of(&self.crop_size, &["height", "width"]).unwrap_or(OPENAI);
        let picture = self.resize(picture, side_of(&self.size, &["shortest_edge"]).unwrap_or(OPENAI));
        let (left, top) = (self.margin(picture.width(), side), self.margin(picture.height(), side));
        let picture = imageops::crop_imm(&picture, left, top, side, side).to_image();
        let (width, height) = picture.dimensions();
        let mut values = vec![0f32; 3 * (width * height) as usize];
        for (pixel, colours) in picture.pixels().enumerate() {
            for colour in 0..3 {
                let value = f64::from(colours.0[colour]) / 255.0;
                let place = colour * (width * height) as usize + pixel;
                values[place] = ((value - self.image_mean[colour]) / self.image_std[colour]) as f32;
            }
        }
        Tensor::from_vec(values, (3, height as usize, width as usize), &Device::Cpu)
    }

    /// What is cut away before a crop.
    fn margin(&self, length: u32, side: u32) -> u32 {
        let rest = length.saturating_sub(side);
        match self.crops_at_nearest {
            true => (f64::from(rest) / 2.0).round_ties_even() as u32,
            false => rest / 2,
        }
    }

    /// Scales the short side.
    fn resize(&self, picture: &RgbImage, short: u32) -> RgbImage {
        let (width, height) = picture.dimensions();
        if width.min(height) == short {
            return picture.clone();
        }
        let long = |side: u32, other: u32| (u64::from(short) * u64::from(side) / u64::from(other)) as u32;
        let (width, height) = match width <= height {
            true => (short, long(height, width)),
            false => (long(width, height), short),
        };
        bicubic(picture, width, height)
    }
}

/// The side of OpenAI's CLIP, which transformers uses by default.
const OPENAI: u32 = 224;

/// A size is a number in older files and an object in newer ones, whose `keys` must agree.
fn side_of(size: &Value, keys: &[&str]) -> Option<u32> {
    if size.is_null() {
        return Some(OPENAI);
    }
    let number = size.as_u64().or_else(|| {
        let first = size[keys[0]].as_u64()?;
        keys.iter().all(|&key| size[key].as_u64() == Some(first)).then_some(first)
    });
    // No tower takes pictures larger than a few thousand pixels.
    number.filter(|side| (1..=8192).contains(side)).map(|side| side as u32)
}
