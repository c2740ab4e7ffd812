//! Makes the bytes of a sample ready for the autoencoder: decoded, cropped and scaled. Runs in several threads ahead of it.

use image::RgbImage;

use super::picture::{Buckets, Fitted, Room, decode, fit};
use super::sources::{self, Cached, Fetched};
use crate::backend::memory;
use crate::base::Digest;

/// The most memory for pictures that are being decoded.
const MOST_ROOM: u64 = 4 << 30;

/// How samples are made ready.
pub struct Preparation {
    /// The sizes to crop to, in pixels.
    buckets: Buckets,
    /// What transparent pixels show.
    background: [u8; 3],
    /// Pixels of a side per number of the latents.
    downscale: usize,
    /// What may be decoded at the same time.
    room: Room,
}

/// A sample that was read.
pub(super) struct Prepared {
    /// The size and digest of its bytes.
    pub(super) read: Option<(u64, Digest)>,
    /// What of it was ignored.
    pub(super) notes: Vec<&'static str>,
    /// An error is the reason to skip it.
    pub(super) content: Result<Content, String>,
}

/// What a sample is.
pub(super) struct Content {
    pub(super) data: Data,
    /// SDXL's sizes: original height and width, top and left of the crop, height and width of the target.
    pub(super) sizes: [f32; 6],
}

/// What the autoencoder still has to do.
pub(super) enum Data {
    /// All of it.
    Picture(RgbImage),
    /// Only to scale.
    Latents(Cached),
}

impl Preparation {
    /// `downscale` is that of the autoencoder.
    pub fn new(buckets: Buckets, background: [u8; 3], downscale: usize) -> Self {
        let room = Room::new((memory::budget(&candle_core::Device::Cpu) / 2).min(MOST_ROOM));
        Self { buckets, background, downscale, room }
    }

    /// Reads and decodes a sample.
    pub(super) fn prepare(&self, fetched: Fetched<'_>) -> Prepared {
        let bytes = match fetched.read() {
            Ok(bytes) => bytes,
            Err(reason) => return Prepared { read: None, notes: Vec::new(), content: Err(reason) },
        };
        let read = Some((bytes.len() as u64, Digest::of(&bytes)));
        if bytes.starts_with(b"PK") {
            return Prepared { read, notes: Vec::new(), content: self.latents(&bytes) };
        }
        match decode(&bytes, self.background, &self.room) {
            Err(reason) => Prepared { read, notes: Vec::new(), content: Err(reason.to_string()) },
            Ok(decoded) => Prepared { read, notes: decoded.notes, content: self.picture(&decoded.picture) },
        }
    }

    fn picture(&self, picture: &RgbImage) -> Result<Content, String> {
        let (height, width) = self.buckets.nearest(picture.dimensions());
        let Fitted { picture: fitted, crop } =
            fit(picture, (height, width)).map_err(|error| error.to_string())?;
        let original = [picture.height() as f32, picture.width() as f32];
        let sizes = [original[0], original[1], crop.0 as f32, crop.1 as f32, height as f32, width as f32];
        Ok(Content { data: Data::Picture(fitted), sizes })
    }

    fn latents(&self, bytes: &[u8]) -> Result<Content, String> {
        let (height, width) = self.buckets.sizes()[0];
        let cached = sources::read_latents(bytes, height * width / self.downscale.pow(2))?;
        let [_, height, width] = cached.shape;
        let (height, width) = ((height * self.downscale) as f32, (width * self.downscale) as f32);
        let original = cached.original_size.map_or([height, width], |(w, h)| [h as f32, w as f32]);
        let (left, top) = cached.crop;
        let sizes = [original[0], original[1], top as f32, left as f32, height, width];
        Ok(Content { data: Data::Latents(cached), sizes })
    }
}
