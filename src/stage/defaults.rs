//! How pictures are drawn unless a pipeline says otherwise; the same wherever a stage draws.

use crate::model::vae::TileSide;

/// BK-SDM's protocol (Kim et al. 2024).
pub fn steps() -> usize {
    25
}

/// Stable Diffusion's.
pub fn guidance_scale() -> f64 {
    7.5
}

/// Good from about 20 steps, and deterministic.
pub fn sampler() -> String {
    "dpm-solver++-2m".to_owned()
}

/// Enough to keep a small machine busy, little enough for its memory.
pub(super) fn batch() -> usize {
    16
}

/// How a key and its explanation name the tiles of an autoencoder.
pub(super) fn tile_text(tile: Option<TileSide>) -> String {
    tile.map_or_else(|| "whole".to_owned(), |side| side.to_string())
}
