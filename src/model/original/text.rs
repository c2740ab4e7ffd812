//! The text encoders' names in a checkpoint: CLIP-L as transformers has it, OpenCLIP's H and bigG as OpenCLIP has
//! them, with queries, keys and values in one matrix.

use super::{Form, Pair};
use crate::model::Part;
use crate::model::unet::UNetConfig;

/// Whose names a text encoder has in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLayout {
    /// transformers'.
    Transformers,
    /// OpenCLIP's.
    OpenClip,
}

/// Where a text encoder is in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct TextPlace {
    /// What its tensors' names begin with.
    pub prefix: &'static str,
    /// Which part of a diffusers directory it is.
    pub part: Part,
    /// Whose names it has.
    pub layout: TextLayout,
    /// Whether its pooled state is projected.
    pub projection: bool,
    /// Whether the checkpoint has a last layer that is not read and that diffusers leaves out.
    pub skip_last: bool,
}

const fn place(prefix: &'static str, part: Part, layout: TextLayout) -> TextPlace {
    TextPlace { prefix, part, layout, projection: false, skip_last: false }
}

const CLIP_L: TextLayout = TextLayout::Transformers;
const SD1: &[TextPlace] = &[place("cond_stage_model.transformer.", Part::TextEncoder, CLIP_L)];
const SD2: &[TextPlace] = &[TextPlace {
    skip_last: true,
    ..place("cond_stage_model.model.", Part::TextEncoder, TextLayout::OpenClip)
}];
/// Where Stability's own code for SDXL puts the encoder of SD 2.x.
pub(super) const SD2_BY_STABILITY: TextPlace = TextPlace {
    skip_last: true,
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

/// Modules of one layer, with weight and bias each.
const LAYER: &[(&str, &str)] = &[
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];
/// What OpenCLIP stacks, in its order.
const STACKED: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
const PREFIX: &str = "text_model.";

/// Every tensor of a text encoder of so many layers by both names. `prefix` says whether ours begin with
/// `text_model.`: transformers 5 leaves it out in a bare text model.
pub fn text_names(layout: TextLayout, layers: usize, prefix: bool, projection: bool) -> Vec<Pair> {
    let tower = if prefix { PREFIX } else { "" };
    let mut pairs = Vec::new();
    let mut same = |there: String, here: &str| pairs.push(Pair::same(there, format!("{tower}{here}")));
    if layout == TextLayout::Transformers {
        let mut names: Vec<String> =
            ["token_embedding", "position_embedding"].map(|name| format!("embeddings.{name}.weight")).into();
        let attention = STACKED.map(|name| format!("self_attn.{name}"));
        for layer in 0..layers {
            let modules = LAYER.iter().map(|(module, _)| *module).chain(attention.iter().map(String::as_str));
            names.extend(modules.flat_map(|module| {
                ["weight", "bias"].map(|tensor| format!("encoder.layers.{layer}.{module}.{tensor}"))
            }));
        }
        names.extend(["weight", "bias"].map(|tensor| format!("final_layer_norm.{tensor}")));
        names.iter().for_each(|name| same(format!("{PREFIX}{name}"), name));
        if projection {
            pairs.push(Pair::same("text_projection.weight", "text_projection.weight"));
        }
        return pairs;
    }
    same("token_embedding.weight".into(), "embeddings.token_embedding.weight");
    same("positional_embedding".into(), "embeddings.position_embedding.weight");
    for tensor in ["weight", "bias"] {
        same(format!("ln_final.{tensor}"), &format!("final_layer_norm.{tensor}"));
        for layer in 0..layers {
            let (here, there) = (format!("encoder.layers.{layer}"), format!("transformer.resblocks.{layer}"));
            for (module, original) in LAYER {
                same(format!("{there}.{original}.{tensor}"), &format!("{here}.{module}.{tensor}"));
            }
        }
    }
    for layer in 0..layers {
        for tensor in ["weight", "bias"] {
            pairs.push(Pair {
                original: format!("transformer.resblocks.{layer}.attn.in_proj_{tensor}"),
                parts: STACKED
                    .map(|name| format!("{tower}encoder.layers.{layer}.self_attn.{name}.{tensor}"))
                    .into(),
                form: Form::Stacked,
            });
        }
    }
    if projection {
        pairs.push(Pair::new("text_projection", "text_projection.weight", Form::Transposed));
    }
    pairs
}
