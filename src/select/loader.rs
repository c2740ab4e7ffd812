//! What other programs can load: the facts about them that selections and exports share.

use crate::model::unet::UNetConfig;

/// The encoders of the SDXL family that ComfyUI knows (comfy/supported_models.py, October 2025): blocks of the
/// transformer after each ResNet of the way down, from the outermost. SDXL, SSD-1B, Segmind-Vega, KOALA-700M, KOALA-1B.
pub const ENCODERS: &[&[usize]] =
    &[&[0, 0, 2, 2, 10, 10], &[0, 0, 2, 2, 4, 4], &[0, 0, 1, 1, 2, 2], &[0, 2, 5], &[0, 2, 6]];

/// The same list for a U-Net as it is now. A shell that has lost its blocks counts as one block: loaders take one
/// without any for none, which it is not.
pub fn encoder(unet: &UNetConfig) -> Vec<usize> {
    unet.kept_depths()
        .iter()
        .flat_map(|(down, _)| down.iter().map(|depth| depth.map_or(0, |depth| depth.max(1))))
        .collect()
}
