//! OpenCLIP's `open_clip_config.json`, translated. Released checkpoints such as HPSv2's have OpenCLIP's tensor names and
//! no configuration of transformers. The defaults are those of open_clip 3.3 (`CLIPVisionCfg`, `CLIPTextCfg`).

use serde::Deserialize;
use serde_json::Value;

use super::config::{Activation, ClipConfig, TextConfig, VisionConfig};
use super::preprocess::ClipPreprocess;

/// The file.
pub(super) const CONFIG: &str = "open_clip_config.json";

/// The configuration of a model, as a file of its own or as `model_cfg`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelConfig {
    embed_dim: usize,
    #[serde(default)]
    quick_gelu: bool,
    vision_cfg: Vision,
    text_cfg: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vision {
    image_size: usize,
    layers: usize,
    width: usize,
    patch_size: usize,
    #[serde(default = "head_width")]
    head_width: usize,
    #[serde(default = "mlp_ratio")]
    mlp_ratio: f64,
    /// Patches left out in training; all are used afterwards.
    #[serde(default, rename = "patch_dropout")]
    _patch_dropout: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    #[serde(default = "mlp_ratio")]
    mlp_ratio: f64,
}

/// `preprocess_cfg`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Preprocess {
    mean: Option<[f64; 3]>,
    std: Option<[f64; 3]>,
    interpolation: Option<String>,
    resize_mode: Option<String>,
}

fn head_width() -> usize {
    64
}

fn mlp_ratio() -> f64 {
    4.0
}

/// Reads the file: the model, and the preparation of pictures. Fails with the reason.
pub(super) fn parse(file: &Value) -> Result<(ClipConfig, ClipPreprocess), String> {
    let model = file.get("model_cfg").unwrap_or(file);
    let ModelConfig { embed_dim, quick_gelu, vision_cfg: vision, text_cfg: text } =
        ModelConfig::deserialize(model).map_err(|error| error.to_string())?;
    if vision.head_width == 0 || !vision.width.is_multiple_of(vision.head_width) {
        return Err(format!("`head_width` {} must divide `width` {}", vision.head_width, vision.width));
    }
    let hidden_act = if quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
    let preprocess = preprocess(&file["preprocess_cfg"], vision.image_size)?;
    let config = ClipConfig {
        text_config: TextConfig {
            vocab_size: text.vocab_size,
            hidden_size: text.width,
            intermediate_size: (text.width as f64 * text.mlp_ratio) as usize,
            projection_dim: embed_dim,
            num_hidden_layers: text.layers,
            num_attention_heads: text.heads,
            max_position_embeddings: text.context_length,
            hidden_act,
            // OpenCLIP reads the state at the largest id, which 2 stands for.
            eos_token_id: 2,
            ..TextConfig::default()
        },
        vision_config: VisionConfig {
            hidden_size: vision.width,
            intermediate_size: (vision.width as f64 * vision.mlp_ratio) as usize,
            num_hidden_layers: vision.layers,
            num_attention_heads: vision.width / vision.head_width,
            image_size: vision.image_size,
            patch_size: vision.patch_size,
            hidden_act,
            ..VisionConfig::default()
        },
        projection_dim: embed_dim,
        model_type: None,
    };
    Ok((config, preprocess))
}

fn preprocess(given: &Value, side: usize) -> Result<ClipPreprocess, String> {
    let given = Option::<Preprocess>::deserialize(given).map_err(|error| error.to_string())?;
    let Preprocess { mean, std, interpolation, resize_mode } = given.unwrap_or_default();
    for (name, found, needed) in
        [("interpolation", interpolation, "bicubic"), ("resize_mode", resize_mode, "shortest")]
    {
        if let Some(found) = found.filter(|found| found != needed) {
            return Err(format!("`{name}` is {found}; it must be {needed}"));
        }
    }
    Ok(ClipPreprocess::of_side(side).coloured(mean, std))
}
