//! Preprocessing of pictures for CLIP: resize the short side, crop the centre, normalise the colours.

use candle_core::{Device, Result, Tensor};
use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::Deserialize;
use serde_json::Value;

/// `preprocessor_config.json`, with the values of OpenAI's CLIP as defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipPreprocess {
    size: Value,
    crop_size: Value,
    image_mean: [f64; 3],
    image_std: [f64; 3],
}

impl Default for ClipPreprocess {
    fn default() -> Self {
        Self {
            size: Value::Null,
            crop_size: Value::Null,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
        }
    }
}

impl ClipPreprocess {
    /// A picture of any size -> [3, side, side] f32 on the CPU.
    pub fn prepare(&self, picture: &RgbImage) -> Result<Tensor> {
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
