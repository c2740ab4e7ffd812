//! The size of a picture, as people write it: `512x768`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use miette::Diagnostic;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::base::parsed;

/// The longest side in pixels: four times the sides for which the largest of the supported models are used.
const MOST: usize = 8192;

/// Width and height in pixels, each at most 8192.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
}

/// A size that a model cannot draw.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the size is {found}; both sides must be multiples of {factor}")]
#[diagnostic(
    code(drawing::size),
    help("leave `size` out to draw at the size that the U-Net was trained for")
)]
pub(super) struct SizeError {
    found: PictureSize,
    factor: usize,
}

impl PictureSize {
    /// Height and width of the latents, for an autoencoder that makes pictures `factor` times smaller.
    pub(super) fn in_latents(self, factor: usize) -> Result<(usize, usize), SizeError> {
        let fits = |side: usize| side > 0 && side.is_multiple_of(factor);
        match fits(self.width) && fits(self.height) {
            true => Ok((self.height / factor, self.width / factor)),
            false => Err(SizeError { found: self, factor }),
        }
    }
}

impl FromStr for PictureSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let sides = text
            .split_once('x')
            .and_then(|(width, height)| Some(Self { width: side(width)?, height: side(height)? }));
        sides.filter(|size| size.width.max(size.height) <= MOST).ok_or_else(|| {
            format!("`{text}` is not a size; give width and height in pixels, each at most {MOST}, such as 512x768")
        })
    }
}

impl<'de> Deserialize<'de> for PictureSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "width and height in pixels such as 512x768")
    }
}

impl fmt::Display for PictureSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl JsonSchema for PictureSize {
    fn schema_name() -> Cow<'static, str> {
        "PictureSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,4}x[0-9]{1,4}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_must_be_whole_in_latents() {
        let size: PictureSize = "512x768".parse().expect("a size");
        assert_eq!(size.in_latents(8).ok(), Some((96, 64)));
        assert!(size.in_latents(7).is_err());
        assert!("0x8".parse::<PictureSize>().is_ok_and(|size| size.in_latents(8).is_err()));
        for text in ["512", "x512", "512x", "512X768", "-8x8", "8200x8", "4294967296x4294967296", "8x+8"] {
            assert!(text.parse::<PictureSize>().is_err(), "{text}");
        }
    }
}
