//! What other programs can load: the facts about them that selections and exports share.

use crate::model::unet::{Mid, UNetConfig};

/// The encoders of the SDXL family that ComfyUI knows (comfy/supported_models.py, October 2025): blocks of the
/// transformer after each ResNet of the way down, from the outermost. SDXL, SSD-1B, Segmind-Vega, KOALA-700M, KOALA-1B.
pub const ENCODERS: &[&[usize]] =
    &[&[0, 0, 2, 2, 10, 10], &[0, 0, 2, 2, 4, 4], &[0, 0, 1, 1, 2, 2], &[0, 2, 5], &[0, 2, 6]];

/// Transformers of a U-Net that a program has in its code.
pub struct KnownDepths {
    /// Blocks after each ResNet of the way down, from the outermost; 0 without a transformer.
    pub down: &'static [usize],
    /// The same of each level's way up, from the outermost level, each in the order of the walk.
    pub up: &'static [usize],
    /// What the middle is.
    pub mid: Mid,
}

/// What stable-diffusion.cpp builds (src/model/diffusion/unet.hpp, August 2026): SD 1.x and 2.x, SDXL, SSD-1B,
/// Segmind-Vega. It knows BK-SDM-Tiny too, by other numbers than ComfyUI's; that is not among them.
pub const SDCPP: &[KnownDepths] = &[
    KnownDepths {
        down: &[1, 1, 1, 1, 1, 1, 0, 0],
        up: &[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        mid: Mid::CrossAttention { depth: 1 },
    },
    KnownDepths {
        down: &[0, 0, 2, 2, 10, 10],
        up: &[0, 0, 0, 2, 2, 2, 10, 10, 10],
        mid: Mid::CrossAttention { depth: 10 },
    },
    KnownDepths { down: &[0, 0, 2, 2, 4, 4], up: &[0, 0, 0, 2, 1, 1, 4, 4, 10], mid: Mid::Resnet },
    KnownDepths { down: &[0, 0, 1, 1, 2, 2], up: &[0, 0, 0, 1, 1, 1, 2, 2, 2], mid: Mid::Resnet },
];

/// The transformers of the way down as a U-Net has them now. A shell that has lost its blocks counts as one block:
/// loaders take one without any for none, which it is not.
pub fn encoder(unet: &UNetConfig) -> Vec<usize> {
    unet.kept_depths()
        .iter()
        .flat_map(|(down, _)| down.iter().map(|depth| depth.map_or(0, |depth| depth.max(1))))
        .collect()
}
