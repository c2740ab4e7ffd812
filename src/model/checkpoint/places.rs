//! Where each model is stored in a checkpoint.

use crate::model::clip::TextLayout;
use crate::model::files::Part;
use crate::model::unet::UNetConfig;

/// Prefix of the U-Net in a checkpoint.
pub const UNET: &str = "model.diffusion_model.";
/// Prefix of the autoencoder.
pub const VAE: &str = "first_stage_model.";
/// An SDXL checkpoint that contains a tensor of this name has a U-Net that predicts velocities.
pub const V_PREDICTION: &str = "v_pred";
/// A tensor of this name says that the noise schedule ends in pure noise (zero terminal SNR).
pub const ZERO_SNR: &str = "ztsnr";

/// Where a text encoder is stored in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct TextPlace {
    /// Prefix of its tensor names.
    pub prefix: &'static str,
    /// The part of a diffusers directory that it corresponds to.
    pub part: Part,
    /// The naming scheme of its tensors.
    pub layout: TextLayout,
    /// Whether its pooled state is projected.
    pub projection: bool,
    /// The number of layers with which the checkpoint has an unused last layer that diffusers leaves out.
    pub skip_last_of: Option<usize>,
}

const fn place(prefix: &'static str, part: Part, layout: TextLayout) -> TextPlace {
    TextPlace { prefix, part, layout, projection: false, skip_last_of: None }
}

const CLIP_L: TextLayout = TextLayout::Transformers;
const SD1: &[TextPlace] = &[place("cond_stage_model.transformer.", Part::TextEncoder, CLIP_L)];
/// OpenCLIP-H has 24 layers, of which SD 2.x reads 23. Files written by diffusers' own script have only these.
const OPEN_CLIP_H: Option<usize> = Some(24);
const SD2: &[TextPlace] = &[TextPlace {
    skip_last_of: OPEN_CLIP_H,
    ..place("cond_stage_model.model.", Part::TextEncoder, TextLayout::OpenClip)
}];
/// Where Stability's SDXL code stores the encoder of SD 2.x.
pub(super) const SD2_BY_STABILITY: TextPlace = TextPlace {
    skip_last_of: OPEN_CLIP_H,
    ..place("conditioner.embedders.0.model.", Part::TextEncoder, TextLayout::OpenClip)
};
const SDXL: &[TextPlace] = &[
    place("conditioner.embedders.0.transformer.", Part::TextEncoder, CLIP_L),
    TextPlace {
        projection: true,
        ..place("conditioner.embedders.1.model.", Part::TextEncoder2, TextLayout::OpenClip)
    },
];

/// The text encoders that belong to a U-Net: CLIP-L to SD 1.x, OpenCLIP-H to SD 2.x, CLIP-L and OpenCLIP-bigG to SDXL.
pub fn text_places(unet: &UNetConfig) -> &'static [TextPlace] {
    match (unet.text_time, unet.use_linear_projection) {
        (Some(_), _) => SDXL,
        (None, true) => SD2,
        (None, false) => SD1,
    }
}
