//! The text encoders' tensor names in a checkpoint: CLIP-L with transformers' names; OpenCLIP's H and bigG with
//! OpenCLIP's, where queries, keys and values are stacked in one matrix.

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
