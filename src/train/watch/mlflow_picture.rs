//! A picture of a training as MLflow's pages show it: a PNG and a thumbnail, with names that `mlflow.log_image` would give.

use std::io::Cursor;

use image::ImageFormat;

use crate::base::Digest;

/// The longest side of a thumbnail, as in MLflow's client.
const THUMBNAIL: u32 = 256;

/// A picture that waits to be sent.
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) step: u64,
    pub(super) png: Vec<u8>,
}

impl Picture {
    /// The files of the picture and its thumbnail, by their names among those of the run.
    pub(super) fn files(&self, begun: u64) -> Result<[(String, Vec<u8>); 2], String> {
        let unreadable = |error: image::ImageError| format!("the picture {}: {error}", self.name);
        let picture = image::load_from_memory(&self.png).map_err(unreadable)?;
        let small = match picture.width().max(picture.height()) > THUMBNAIL {
            true => picture.thumbnail(THUMBNAIL, THUMBNAIL),
            false => picture,
        };
        let mut thumbnail = Cursor::new(Vec::new());
        small.to_rgb8().write_to(&mut thumbnail, ImageFormat::WebP).map_err(unreadable)?;
        let (name, step, digest) =
            (self.name.replace('/', "~"), self.step, Digest::of(&self.png).to_string());
        let name = format!("images/{name}+step+{step}+timestamp+{begun}+{}", &digest[..32]);
        Ok([
            (format!("{name}.png"), self.png.clone()),
            (format!("{name}+compressed.webp"), thumbnail.into_inner()),
        ])
    }
}
