//! The tensor names of CLIP in a checkpoint: CLIP-L with transformers' names; OpenCLIP's H and bigG with OpenCLIP's,
//! where queries, keys and values are stacked in one matrix.

use super::config::ClipConfig;
use super::encoder::MOST_LAYERS;
use crate::model::files::original::{Form, Pair};

/// Naming scheme of a text encoder in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLayout {
    /// The names of transformers.
    Transformers,
    /// The names of OpenCLIP.
    OpenClip,
}

/// Modules of one layer that have both weight and bias.
const LAYER: &[(&str, &str)] = &[
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];
/// Modules that OpenCLIP stacks, in its order.
const STACKED: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
const PREFIX: &str = "text_model.";

/// All tensors of a text encoder with this many layers, under both names. `prefix` says whether diffusers' names start
/// with `text_model.`, which transformers 5 omits in a bare text model.
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
    }
    pairs.extend(open_clip_layers("", tower, layers));
    if projection {
        pairs.push(Pair::new("text_projection", "text_projection.weight", Form::Transposed));
    }
    pairs
}

/// A tensor that a whole model of OpenCLIP has and none of transformers.
pub(super) const OF_OPEN_CLIP: &str = "visual.conv1.weight";

/// All tensors of a whole CLIP model under OpenCLIP's names and those of a `CLIPModel`.
pub(super) fn open_clip_names(config: &ClipConfig) -> Vec<Pair> {
    let mut pairs = text_names(TextLayout::OpenClip, config.text_config.num_hidden_layers, true, true);
    let tower = "vision_model.";
    let mut same = |there: &str, here: &str| {
        pairs.push(Pair::same(format!("visual.{there}"), format!("{tower}{here}")));
    };
    same("conv1.weight", "embeddings.patch_embedding.weight");
    same("class_embedding", "embeddings.class_embedding");
    same("positional_embedding", "embeddings.position_embedding.weight");
    for tensor in ["weight", "bias"] {
        // The name is misspelled in transformers.
        same(&format!("ln_pre.{tensor}"), &format!("pre_layrnorm.{tensor}"));
        same(&format!("ln_post.{tensor}"), &format!("post_layernorm.{tensor}"));
    }
    pairs.extend(open_clip_layers("visual.", tower, config.vision_config.num_hidden_layers));
    pairs.push(Pair::new("visual.proj", "visual_projection.weight", Form::Transposed));
    pairs.push(Pair::same("logit_scale", "logit_scale"));
    pairs
}

/// The layers of one of OpenCLIP's towers. `there` and `here` are the prefixes of both names.
fn open_clip_layers(there: &str, here: &str, layers: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    // A damaged configuration with more is refused when the model is built.
    for layer in 0..layers.min(MOST_LAYERS) {
        let there = format!("{there}transformer.resblocks.{layer}");
        let here = format!("{here}encoder.layers.{layer}");
        for tensor in ["weight", "bias"] {
            for (module, original) in LAYER {
                pairs.push(Pair::same(
                    format!("{there}.{original}.{tensor}"),
                    format!("{here}.{module}.{tensor}"),
                ));
            }
            pairs.push(Pair {
                original: format!("{there}.attn.in_proj_{tensor}"),
                parts: STACKED.map(|name| format!("{here}.self_attn.{name}.{tensor}")).into(),
                form: Form::Stacked,
            });
        }
    }
    pairs
}
