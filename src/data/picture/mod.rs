//! From the bytes of a picture file to RGB pixels of the size that a model is trained at.

mod buckets;
mod colour;
mod crop;
mod decode;
mod exif;
mod jpeg;
mod room;

pub use buckets::Buckets;
pub use crop::{Fitted, fit};
pub use decode::{Decoded, Undecodable, decode};
pub use room::Room;
