//! `config.json` of CLIP models, with the defaults of transformers 5.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Configuration of a text tower.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct TextConfig {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Width of the projected pooled state.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention layer.
    pub num_attention_heads: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// The token that ends a text. It is 2 in older files, which is wrong: there the end token is the largest id.
    pub eos_token_id: u32,
    /// Classes that the weights are of.
    pub(super) architectures: Option<Vec<String>>,
    /// transformers' name of the kind of model.
    pub(super) model_type: Option<String>,
    /// Whether diffusers' pipelines mask the padding.
    pub(super) use_attention_mask: Option<bool>,
}

/// Configuration of an image tower.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention layer.
    pub num_attention_heads: usize,
    /// Colour channels of a picture.
    pub num_channels: usize,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

/// Configuration of both towers.
#[derive(Clone, Debug, Deserialize)]
pub struct ClipConfig {
    /// The text tower.
    #[serde(default)]
    pub text_config: TextConfig,
    /// The image tower.
    #[serde(default)]
    pub vision_config: VisionConfig,
    /// Width of the shared embedding space.
    #[serde(default = "projection_dim")]
    pub projection_dim: usize,
    /// transformers' name of the kind of model.
    #[serde(default)]
    pub(super) model_type: Option<String>,
}

impl ClipConfig {
    /// Which CLIP it is, in the words of the papers: `ViT-H/14 at 224 pixels`.
    pub fn name(&self) -> String {
        let VisionConfig { hidden_size, num_hidden_layers, image_size, patch_size, .. } = self.vision_config;
        // Dosovitskiy et al. 2021, table 1; Zhai et al. 2022, table 2.
        let size = match (hidden_size, num_hidden_layers) {
            (768, 12) => "B".to_owned(),
            (1024, 24) => "L".to_owned(),
            (1280, 32) => "H".to_owned(),
            (1408, 40) => "g".to_owned(),
            (1664, 48) => "bigG".to_owned(),
            (width, layers) => format!("{layers}x{width}"),
        };
        format!("ViT-{size}/{patch_size} at {image_size} pixels")
    }

    /// What a scorer cannot be, as text.
    pub(super) fn check(&self) -> Result<(), String> {
        let colours = self.vision_config.num_channels;
        match &self.model_type {
            Some(kind) if kind != "clip" => {
                Err(format!("`model_type` is {kind}; a scorer is a CLIPModel, whose `model_type` is clip"))
            }
            _ if colours != 3 => Err(format!("its pictures have {colours} colour channels; 3 are needed")),
            _ => Ok(()),
        }
    }
}

/// An activation, with transformers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// GELU with the error function.
    Gelu,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: projection_dim(),
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
            architectures: None,
            model_type: None,
            use_attention_mask: None,
        }
    }
}

/// Keys that every configuration of transformers may have, and that do not change what a text tower computes.
const WITHOUT_EFFECT: &[&str] = &[
    "attention_dropout",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dropout",
    "dtype",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "tie_word_embeddings",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
];

impl TextConfig {
    /// Reads a text encoder's `config.json`. As in transformers, that of a whole CLIP model gives its text tower.
    pub fn parse(config: &Map<String, Value>) -> Result<Self, String> {
        let read = |value: Value| Self::deserialize(value).map_err(|error| error.to_string());
        let tower = match (config.get("model_type").and_then(Value::as_str), config.get("text_config")) {
            (Some("clip"), Some(tower @ Value::Object(_))) => {
                let config = read(tower.clone())?;
                Self { architectures: None, model_type: None, ..config }
            }
            _ => read(Value::Object(config.clone()))?,
        };
        tower.check()?;
        Ok(tower)
    }

    /// What is unsupported, as text.
    fn check(&self) -> Result<(), String> {
        let classes = self.architectures.iter().flatten();
        if let Some(class) = classes.clone().find(|class| !class.starts_with("CLIPText")) {
            return Err(format!(
                "the text encoder is of the class {class}; only CLIP's text encoders are supported"
            ));
        }
        if let Some(kind) =
            self.model_type.as_deref().filter(|kind| !["clip", "clip_text_model"].contains(kind))
        {
            return Err(format!("`model_type` is {kind}; only CLIP's text encoders are supported"));
        }
        match self.use_attention_mask {
            Some(true) => {
                Err("`use_attention_mask` is true, so that the padding of prompts is masked; only text \
                               encoders that read all 77 tokens are supported"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The keys of a `config.json` that are not known; they may change what the encoder computes.
    pub fn unknown_keys(config: &Map<String, Value>) -> serde_json::Result<Vec<String>> {
        let read = serde_json::to_value(Self::default())?;
        let known =
            |key: &str| key.starts_with('_') || read.get(key).is_some() || WITHOUT_EFFECT.contains(&key);
        // A whole CLIP model's keys describe its other tower too.
        let whole = config.contains_key("text_config");
        Ok(config.keys().filter(|key| !whole && !known(key)).cloned().collect())
    }
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

fn projection_dim() -> usize {
    512
}
