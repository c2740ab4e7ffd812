//! Runs an autoencoder in overlapping tiles, for pictures whose activations do not fit into memory.
//!
//! The arithmetic is that of diffusers' `AutoencoderKL.enable_tiling`: tiles overlap by a quarter and are blended
//! linearly in the overlap. The norms and attention of a tile see only that tile, so pictures differ slightly from
//! those without tiling.

use std::fmt;
use std::str::FromStr;

use candle_core::{Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::base::parsed;

/// Beyond this no picture is divided.
const MOST: usize = 1024;

/// The side of a tile in latent pixels: a multiple of 4, so that a quarter of it is an integer. A larger tile gives a
/// result closer to that without tiling and takes more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(extend("minimum" = 4, "maximum" = MOST, "multipleOf" = 4))]
pub struct TileSide(usize);

impl TileSide {
    /// The side in latent pixels.
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for TileSide {
    type Error = String;

    fn try_from(side: usize) -> std::result::Result<Self, String> {
        match side {
            4..=MOST if side.is_multiple_of(4) => Ok(Self(side)),
            _ => Err(format!(
                "a tile's side is {side}; it must be a multiple of 4 from 4 to {MOST}, such as 64"
            )),
        }
    }
}

impl FromStr for TileSide {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        text.parse::<usize>().map_err(|error| error.to_string())?.try_into()
    }
}

impl<'de> Deserialize<'de> for TileSide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        parsed::number(deserializer, "a multiple of 4 such as 64")
    }
}

impl fmt::Display for TileSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Runs `half` of an autoencoder on `x` [b, c, h, w] in tiles of `side`, whose results overlap by `overlap` pixels.
pub(super) fn by_tiles(
    x: &Tensor,
    side: usize,
    overlap: usize,
    half: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let stride = side - side / 4;
    let mut above: Vec<Tensor> = Vec::new();
    let mut rows = Vec::new();
    for top in (0..height).step_by(stride) {
        let band = x.narrow(2, top, side.min(height - top))?;
        let mut row: Vec<Tensor> = Vec::new();
        for left in (0..width).step_by(stride) {
            let mut tile = half(&band.narrow(3, left, side.min(width - left))?.contiguous()?)?;
            if let Some(above) = above.get(row.len()) {
                tile = blend(above, &tile, 2, overlap)?;
            }
            if let Some(before) = row.last() {
                tile = blend(before, &tile, 3, overlap)?;
            }
            row.push(tile);
        }
        // The overlap with the next tile is written, blended, by that tile.
        let shown = |tile: &Tensor, dim| tile.narrow(dim, 0, tile.dim(dim)?.min(3 * overlap));
        let shown: Vec<Tensor> = row.iter().map(|tile| shown(&shown(tile, 2)?, 3)).collect::<Result<_>>()?;
        rows.push(Tensor::cat(&shown, 3)?);
        above = row;
    }
    Tensor::cat(&rows, 2)
}

/// `tile` with its first `overlap` pixels along `dim` blended with the last ones of `before`.
fn blend(before: &Tensor, tile: &Tensor, dim: usize, overlap: usize) -> Result<Tensor> {
    let (end, length) = (before.dim(dim)?, tile.dim(dim)?);
    let overlap = overlap.min(end).min(length);
    let mut shape = [1; 4];
    shape[dim] = overlap;
    let ramp = |share: fn(f64) -> f64| -> Result<Tensor> {
        let shares = (0..overlap).map(|pixel| share(pixel as f64 / overlap as f64) as f32).collect();
        Tensor::from_vec(shares, &shape, tile.device())?.to_dtype(tile.dtype())
    };
    let faded_out = before.narrow(dim, end - overlap, overlap)?.broadcast_mul(&ramp(|share| 1.0 - share)?)?;
    let faded_in = tile.narrow(dim, 0, overlap)?.broadcast_mul(&ramp(|share| share)?)?;
    Tensor::cat(&[(faded_out + faded_in)?, tile.narrow(dim, overlap, length - overlap)?], dim)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// If tiles do not change the result, merging them does not either.
    #[test]
    fn tiling_does_not_change_a_pointwise_half() -> Result<()> {
        let x = Tensor::arange(0f32, 2.0 * 9.0 * 14.0, &Device::Cpu)?.reshape((1, 2, 9, 14))?;
        let halved = by_tiles(&x, 4, 1, |tile| tile * 0.5)?;
        assert_eq!(halved.dims(), x.dims());
        let far = (halved - (&x * 0.5)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(far < 1e-4, "{far}");
        Ok(())
    }

    #[test]
    fn a_side_is_a_multiple_of_four() {
        assert_eq!("64".parse::<TileSide>().map(TileSide::get), Ok(64));
        for bad in ["0", "6", "-4", "x", "1028", "18446744073709551612"] {
            assert!(bad.parse::<TileSide>().is_err(), "{bad}");
        }
    }
}
