//! How pictures are drawn unless a pipeline says otherwise; the same wherever a stage draws.

use crate::model::vae::TileSide;

/// BK-SDM's protocol (Kim et al. 2024).
pub(super) fn steps() -> usize {
    25
}

/// Stable Diffusion's.
pub(super) fn guidance_scale() -> f64 {
    7.5
}

/// Enough to keep a small machine busy, little enough for its memory.
pub(super) fn batch() -> usize {
    16
}

/// How a key and its explanation name the tiles of an autoencoder.
pub(super) fn tile_text(tile: Option<TileSide>) -> String {
    tile.map_or_else(|| "whole".to_owned(), |side| side.to_string())
}
