//! The keys of a U-Net's `config.json`, with the defaults of diffusers 0.42, and their translation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{Level, Mid, TextTime, UNetConfig};
use super::error::ConfigError;
use super::flatten::normalise;
use super::keys;
use crate::base::{UnitId, python_json};

/// A value, or one value per level. Untagged, because diffusers writes both; the list is tried first, so that a list of
/// lists is not read as one list.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T: Clone> OneOrMany<T> {
    /// One value per level; `None` if the list has another length.
    fn spread(&self, levels: usize) -> Option<Vec<T>> {
        match self {
            Self::One(value) => Some(vec![value.clone(); levels]),
            Self::Many(values) => (values.len() == levels).then(|| values.clone()),
        }
    }
}

/// Transformer depths: one number, one per level, or one per layer of each level.
type Depths = OneOrMany<OneOrMany<usize>>;

#[derive(Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Raw {
    sample_size: Option<OneOrMany<usize>>,
    in_channels: usize,
    out_channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    down_block_types: Vec<String>,
    mid_block_type: Option<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: OneOrMany<usize>,
    norm_num_groups: usize,
    norm_eps: f64,
    cross_attention_dim: OneOrMany<usize>,
    transformer_layers_per_block: Depths,
    reverse_transformer_layers_per_block: Option<Depths>,
    /// The number of heads, despite its name: https://github.com/huggingface/diffusers/issues/2011
    attention_head_dim: OneOrMany<usize>,
    use_linear_projection: bool,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    time_embedding_dim: Option<usize>,
    removed_units: BTreeSet<UnitId>,
    linear_units: BTreeSet<UnitId>,
}

impl Default for Raw {
    fn default() -> Self {
        let attention = |kind: &str, plain: &str, plain_first: bool| {
            let mut kinds = vec![kind.to_owned(); 3];
            kinds.insert(if plain_first { 0 } else { 3 }, plain.to_owned());
            kinds
        };
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: attention("CrossAttnDownBlock2D", "DownBlock2D", false),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".to_owned()),
            up_block_types: attention("CrossAttnUpBlock2D", "UpBlock2D", true),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrMany::One(2),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: OneOrMany::One(1280),
            transformer_layers_per_block: OneOrMany::One(OneOrMany::One(1)),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: OneOrMany::One(8),
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_embedding_dim: None,
            removed_units: BTreeSet::new(),
            linear_units: BTreeSet::new(),
        }
    }
}

/// No real U-Net comes close to these limits; larger values would overflow the arithmetic.
const MOST_CHANNELS: usize = 1 << 16;
const MOST_LAYERS: usize = 1 << 8;
const MOST_LEVELS: usize = 1 << 4;
/// ResNets and transformer blocks together; SDXL has 87.
const MOST_STEPS: usize = 1 << 12;

impl UNetConfig {
    /// Reads a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of a `config.json`. Unknown keys are ignored; unsupported values of known keys are refused.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (mut config, removed) = Raw::resolve(text)?;
        let linear = std::mem::take(&mut config.linear_units);
        config.removed_units =
            normalise(&config, &removed).map_err(|unit| ConfigError::UnknownUnit { unit })?;
        config.with_maps(&linear).map_err(|unit| ConfigError::NoPlaceForMap { unit })
    }
}

/// The keys of a `config.json` that are not known; they may change what the network computes.
pub fn unknown_keys(config: &Map<String, Value>) -> Result<Vec<String>, ConfigError> {
    let read = serde_json::to_value(Raw::default())?;
    let known = |key: &str| key.starts_with('_') || read.get(key).is_some() || keys::is_known(key);
    Ok(config.keys().filter(|key| !known(key)).cloned().collect())
}

impl Raw {
    /// Parses and translates. Removed units and those with a map are returned as written; the caller checks them against the
    /// shape.
    pub(super) fn resolve(text: &str) -> Result<(UNetConfig, BTreeSet<UnitId>), ConfigError> {
        // Through a map, because serde would also accept a list for a struct.
        let value = Value::Object(python_json::from_slice(text.as_bytes())?);
        keys::check(&value)?;
        let raw: Self = serde_json::from_value(value)?;
        let sample_size = match &raw.sample_size {
            // Stable Diffusion's own size, which diffusers' pipelines also use as default.
            None => (64, 64),
            Some(size) => match size.spread(2).as_deref() {
                Some(&[height, width]) if (1..=MOST_CHANNELS).contains(&height.max(width)) => (height, width),
                _ => return Err(contradiction("sample_size", size, "height and width are needed")),
            },
        };
        let levels = raw.levels()?;
        check_steps(&levels)?;
        let config = UNetConfig {
            in_channels: bounded("in_channels", raw.in_channels, MOST_CHANNELS)?,
            out_channels: bounded("out_channels", raw.out_channels, MOST_CHANNELS)?,
            sample_size,
            levels,
            mid: raw.mid()?,
            norm_num_groups: raw.norm_num_groups,
            norm_eps: raw.norm_eps,
            use_linear_projection: raw.use_linear_projection,
            flip_sin_to_cos: raw.flip_sin_to_cos,
            freq_shift: raw.freq_shift,
            time_embed_dim: match raw.time_embedding_dim {
                Some(size) => bounded("time_embedding_dim", size, 4 * MOST_CHANNELS)?,
                None => 4 * raw.block_out_channels[0],
            },
            text_time: raw.text_time()?,
            removed_units: BTreeSet::new(),
            linear_units: raw.linear_units.clone(),
        };
        Ok((config, raw.removed_units))
    }

    fn levels(&self) -> Result<Vec<Level>, ConfigError> {
        let count = self.block_out_channels.len();
        bounded("block_out_channels", count, MOST_LEVELS)?;
        let one_each = format!("one for each of {count} `block_out_channels` is needed");
        let spread = |key, values: &OneOrMany<usize>| {
            values.spread(count).ok_or_else(|| contradiction(key, values, &one_each))
        };
        let layers = spread("layers_per_block", &self.layers_per_block)?;
        let heads = spread("attention_head_dim", &self.attention_head_dim)?;
        let context = spread("cross_attention_dim", &self.cross_attention_dim)?;
        let (key, reverse_key) = ("transformer_layers_per_block", "reverse_transformer_layers_per_block");
        let depths = &self.transformer_layers_per_block;
        let down = depths.spread(count).ok_or_else(|| contradiction(key, depths, &one_each))?;
        let mut up = match &self.reverse_transformer_layers_per_block {
            Some(depths) => {
                depths.spread(count).ok_or_else(|| contradiction(reverse_key, depths, &one_each))?
            }
            None if down.iter().any(|depth| matches!(depth, OneOrMany::Many(_))) => {
                let needed = format!("depths per layer also require `{reverse_key}`");
                return Err(contradiction(key, depths, &needed));
            }
            None => down.iter().rev().cloned().collect(),
        };
        up.reverse();
        for (key, kinds) in
            [("down_block_types", &self.down_block_types), ("up_block_types", &self.up_block_types)]
        {
            if kinds.len() != count {
                return Err(contradiction(key, kinds, &one_each));
            }
        }
        (0..count)
            .map(|level| {
                let channels = bounded("block_out_channels", self.block_out_channels[level], MOST_CHANNELS)?;
                self.check_divides("norm_num_groups", self.norm_num_groups, channels)?;
                self.check_divides("attention_head_dim", heads[level], channels)?;
                let layers = bounded("layers_per_block", layers[level], MOST_LAYERS)?;
                let down_has = attends("down_block_types", &self.down_block_types[level], "Down")?;
                let up_has = attends("up_block_types", &self.up_block_types[count - 1 - level], "Up")?;
                Ok(Level {
                    channels,
                    heads: heads[level],
                    cross_attention_dim: bounded("cross_attention_dim", context[level], MOST_CHANNELS)?,
                    layers,
                    down_depths: down_has.then(|| per_layer(key, &down[level], layers)).transpose()?,
                    up_depths: up_has.then(|| per_layer(reverse_key, &up[level], layers + 1)).transpose()?,
                })
            })
            .collect()
    }

    fn mid(&self) -> Result<Mid, ConfigError> {
        match self.mid_block_type.as_deref() {
            None => Ok(Mid::None),
            Some("UNetMidBlock2D") => Ok(Mid::Resnet),
            Some("UNetMidBlock2DCrossAttn") => {
                let depth = match &self.transformer_layers_per_block {
                    OneOrMany::One(depth) => Some(depth),
                    OneOrMany::Many(depths) => depths.last(),
                };
                let depth = match depth {
                    Some(OneOrMany::One(depth)) => *depth,
                    Some(OneOrMany::Many(depths)) => depths.first().copied().unwrap_or(0),
                    None => 0,
                };
                at_most("transformer_layers_per_block", depth).map(|depth| Mid::CrossAttention { depth })
            }
            Some(kind) => Err(ConfigError::Unsupported {
                key: "mid_block_type",
                found: kind.to_owned(),
                needed: "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null".to_owned(),
            }),
        }
    }

    fn text_time(&self) -> Result<Option<TextTime>, ConfigError> {
        let needed = |key, value: Option<usize>| match value {
            Some(size) => bounded(key, size, MOST_CHANNELS),
            None => Err(contradiction(key, &value, "`addition_embed_type` text_time needs it")),
        };
        match self.addition_embed_type.as_deref() {
            None => Ok(None),
            Some("text_time") => Ok(Some(TextTime {
                time_dim: needed("addition_time_embed_dim", self.addition_time_embed_dim)?,
                input_dim: needed(
                    "projection_class_embeddings_input_dim",
                    self.projection_class_embeddings_input_dim,
                )?,
            })),
            Some(kind) => Err(ConfigError::Unsupported {
                key: "addition_embed_type",
                found: kind.to_owned(),
                needed: "text_time or null".to_owned(),
            }),
        }
    }

    fn check_divides(&self, key: &'static str, parts: usize, channels: usize) -> Result<(), ConfigError> {
        if parts == 0 || !channels.is_multiple_of(parts) {
            return Err(contradiction(key, &parts, &format!("it must divide {channels} channels")));
        }
        Ok(())
    }
}

/// Whether a block of this type contains transformers.
fn attends(key: &'static str, kind: &str, way: &str) -> Result<bool, ConfigError> {
    let (plain, attention) = (format!("{way}Block2D"), format!("CrossAttn{way}Block2D"));
    match kind {
        _ if kind == plain => Ok(false),
        _ if kind == attention => Ok(true),
        _ => {
            let needed = format!("{plain} or {attention}");
            Err(ConfigError::Unsupported { key, found: kind.to_owned(), needed })
        }
    }
}

fn per_layer(key: &'static str, depth: &OneOrMany<usize>, layers: usize) -> Result<Vec<usize>, ConfigError> {
    let needed = || contradiction(key, depth, &format!("{layers} layers require {layers} depths"));
    depth.spread(layers).ok_or_else(needed)?.into_iter().map(|depth| at_most(key, depth)).collect()
}

/// Each number is already bounded; together they could still give a list that fills the memory.
fn check_steps(levels: &[Level]) -> Result<(), ConfigError> {
    let depths = |depths: &Option<Vec<usize>>| depths.iter().flatten().sum::<usize>();
    let steps = |level: &Level| 2 * level.layers + 1 + depths(&level.down_depths) + depths(&level.up_depths);
    bounded("transformer_layers_per_block", levels.iter().map(steps).sum(), MOST_STEPS).map(drop)
}

fn at_most(key: &'static str, depth: usize) -> Result<usize, ConfigError> {
    if depth == 0 { Ok(0) } else { bounded(key, depth, MOST_LAYERS) }
}

fn bounded(key: &'static str, found: usize, most: usize) -> Result<usize, ConfigError> {
    if (1..=most).contains(&found) {
        return Ok(found);
    }
    Err(contradiction(key, &found, &format!("between 1 and {most} is needed")))
}

fn contradiction(key: &'static str, found: &impl std::fmt::Debug, needed: &str) -> ConfigError {
    ConfigError::Contradiction { key, found: format!("{found:?}"), needed: needed.to_owned() }
}
