//! Preprocessing of pictures for CLIP: resize the short side, crop the centre, normalise the colours.

use candle_core::{Device, Tensor};
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::Deserialize;
use serde_json::Value;

/// Pillow's number for bicubic interpolation.
const BICUBIC: u32 = 3;

/// `preprocessor_config.json`, with the values of OpenAI's CLIP as defaults.
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
    resample: u32,
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
        }
    }
}

impl ClipPreprocess {
    /// The preprocessing of OpenAI's CLIP for a tower that reads pictures of this side.
    pub(super) fn of_side(side: usize) -> Self {
        Self { size: side.into(), crop_size: side.into(), ..Self::default() }
    }

    /// Whether its pictures fit a tower that reads this side, and all its steps are ours; otherwise why not.
    pub(super) fn check(&self, side: usize) -> Result<(), String> {
        let given = side_of(&self.crop_size, "height") as usize;
        if given != side {
            return Err(format!("pictures are cropped to {given} pixels, but the scorer reads {side}"));
        }
        let steps = [
            ("do_resize", self.do_resize),
            ("do_center_crop", self.do_center_crop),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
        ];
        if let Some((key, _)) = steps.iter().find(|(_, done)| !done) {
            return Err(format!("`{key}` is false; only CLIP's own preprocessing is supported"));
        }
        if self.resample != BICUBIC {
            return Err(format!("`resample` is {}; only {BICUBIC} (bicubic) is supported", self.resample));
        }
        if self.size.is_object() && self.size["shortest_edge"].is_null() {
            return Err("`size` has no `shortest_edge`, to which CLIP's preprocessing resizes".to_owned());
        }
        Ok(())
    }

    /// A picture of any size -> [3, side, side] f32 on the CPU.
    pub fn prepare(&self, picture: &RgbImage) -> candle_core::Result<Tensor> {
        let side = side_of(&self.crop_size, "height");
        let picture = self.resize(picture, side_of(&self.size, "shortest_edge"));
        let (left, top) = (centre(picture.width(), side), centre(picture.height(), side));
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

    /// Bicubic with a = -1/2 over the whole footprint of an output pixel, as in Pillow.
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
        imageops::resize(picture, width, height, FilterType::CatmullRom)
    }
}

/// A size is a number in older files and an object in newer ones.
fn side_of(size: &Value, key: &str) -> u32 {
    let number = size.as_u64().or_else(|| size[key].as_u64());
    // 224 is the side of OpenAI's CLIP; no tower takes pictures larger than a few thousand pixels.
    number.filter(|side| (1..=8192).contains(side)).unwrap_or(224) as u32
}

fn centre(length: u32, side: u32) -> u32 {
    length.saturating_sub(side) / 2
}
