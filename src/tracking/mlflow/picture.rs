//! A picture of a training as MLflow's pages show it: a PNG and a thumbnail, with names that `mlflow.log_image` would give.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use image::ImageFormat;

use crate::base::{Digest, kept};

/// The longest side of a thumbnail, as in MLflow's client.
const THUMBNAIL: u32 = 256;

/// A picture that waits to be sent.
pub(in crate::tracking) struct Picture {
    pub(in crate::tracking) name: String,
    pub(in crate::tracking) step: u64,
    pub(in crate::tracking) path: PathBuf,
    /// Whether it lies beside a checkpoint, where a crash may have damaged it.
    pub(in crate::tracking) unfinished: bool,
}

impl Picture {
    /// The picture and its thumbnail, by their names among the files of a run. `None` if it is damaged or gone.
    pub(in crate::tracking) fn files(&self, begun: u64) -> Option<Vec<(String, Vec<u8>)>> {
        if self.unfinished {
            kept::matches(&self.path).ok()?.filter(|whole| *whole)?;
        }
        let png = fs::read(&self.path).ok()?;
        let picture = image::load_from_memory(&png).ok()?;
        let small = match picture.width().max(picture.height()) > THUMBNAIL {
            true => picture.thumbnail(THUMBNAIL, THUMBNAIL),
            false => picture,
        };
        let mut thumbnail = Cursor::new(Vec::new());
        small.to_rgb8().write_to(&mut thumbnail, ImageFormat::WebP).ok()?;
        let (name, step, digest) = (self.name.replace('/', "~"), self.step, Digest::of(&png).to_string());
        let name = format!("images/{name}+step+{step}+timestamp+{begun}+{}", &digest[..32]);
        Some(vec![(format!("{name}.png"), png), (format!("{name}+compressed.webp"), thumbnail.into_inner())])
    }
}
