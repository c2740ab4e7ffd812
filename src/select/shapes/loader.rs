//! What other programs can load: facts that both selections and exports use.

use crate::model::unet::{Mid, UNetConfig};

/// The encoders of the SDXL family that ComfyUI supports (comfy/supported_models.py, October 2025): the depth of the
/// transformer after each ResNet of the down blocks, from the outermost. SDXL, SSD-1B, Segmind-Vega, KOALA-700M, KOALA-1B.
pub const ENCODERS: &[&[usize]] =
    &[&[0, 0, 2, 2, 10, 10], &[0, 0, 2, 2, 4, 4], &[0, 0, 1, 1, 2, 2], &[0, 2, 5], &[0, 2, 6]];

/// The transformers of a U-Net that a program supports.
pub struct KnownDepths {
    /// Depths after each ResNet of the down blocks, from the outermost; 0 without a transformer.
    pub down: &'static [usize],
    /// The same for the up block of each level, from the outermost level, each in walk order.
    pub up: &'static [usize],
    /// The middle block.
    pub mid: Mid,
}

/// What stable-diffusion.cpp builds (src/model/diffusion/unet.hpp, August 2026): SD 1.x and 2.x, SDXL, SSD-1B,
/// Segmind-Vega. It also supports BK-SDM-Tiny, but numbers its layers differently from ComfyUI, so that is left out.
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

/// The depths of the transformers in the down blocks of a U-Net as it is now. A shell without blocks counts as depth 1,
/// because loaders would take depth 0 for no transformer at all.
pub fn encoder(unet: &UNetConfig) -> Vec<usize> {
    unet.kept_depths()
        .iter()
        .flat_map(|(down, _)| down.iter().map(|depth| depth.map_or(0, |depth| depth.max(1))))
        .collect()
}
