//! Writes a U-Net's shape as the `config.json` that diffusers reads: the inverse of [`UNetConfig::parse`].

use serde_json::{Map, Value, json};

use super::config::{Level, Mid, UNetConfig};

/// The diffusers class that the file configures.
pub const CLASS: &str = "UNet2DConditionModel";

impl UNetConfig {
    /// The keys of a `config.json`, as short as diffusers allows: a single number where all levels agree. In that file
    /// the depth in the middle equals that of the innermost level of the down path, so a different depth in the middle
    /// cannot be expressed.
    pub fn to_json(&self) -> Value {
        let (height, width) = self.sample_size;
        let of_levels = |value: fn(&Level) -> usize| self.levels.iter().map(value).collect::<Vec<_>>();
        let types = |way: &str, depths: fn(&Level) -> &Option<Vec<usize>>| -> Vec<String> {
            let kind = |level| if depths(level).is_some() { "CrossAttn" } else { "" };
            self.levels.iter().map(|level| format!("{}{way}Block2D", kind(level))).collect()
        };
        let mut keys = json!({
            "_class_name": CLASS,
            "sample_size": if height == width { json!(height) } else { json!([height, width]) },
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": self.freq_shift,
            "down_block_types": types("Down", |level| &level.down_depths),
            "mid_block_type": match self.mid {
                Mid::None => Value::Null,
                Mid::Resnet => json!("UNetMidBlock2D"),
                Mid::CrossAttention { .. } => json!("UNetMidBlock2DCrossAttn"),
            },
            "up_block_types": types("Up", |level| &level.up_depths).into_iter().rev().collect::<Vec<_>>(),
            "block_out_channels": of_levels(|level| level.channels),
            "layers_per_block": one_or_many(of_levels(|level| level.layers)),
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
            "cross_attention_dim": one_or_many(of_levels(|level| level.cross_attention_dim)),
            "attention_head_dim": one_or_many(of_levels(|level| level.heads)),
            "use_linear_projection": self.use_linear_projection,
        });
        let keys_of = keys.as_object_mut().expect("it was written as an object above");
        self.write_depths(keys_of);
        if self.time_embed_dim != 4 * self.levels[0].channels {
            keys_of.insert("time_embedding_dim".into(), json!(self.time_embed_dim));
        }
        if let Some(text_time) = self.text_time {
            keys_of.insert("addition_embed_type".into(), json!("text_time"));
            keys_of.insert("addition_time_embed_dim".into(), json!(text_time.time_dim));
            keys_of.insert("projection_class_embeddings_input_dim".into(), json!(text_time.input_dim));
        }
        if !self.removed_units.is_empty() {
            keys_of.insert("removed_units".into(), json!(self.removed_units));
        }
        if !self.linear_units.is_empty() {
            keys_of.insert("linear_units".into(), json!(self.linear_units));
        }
        keys
    }

    /// One depth per level if each level has a single depth and the paths mirror each other, else one depth per layer
    /// of each path.
    fn write_depths(&self, keys: &mut Map<String, Value>) {
        let mid = self.mid.depth().unwrap_or(1);
        let last = self.levels.len() - 1;
        // Without attention a level's depth is not used, except for that of the middle.
        let unread = |level: usize| if level == last { mid } else { 1 };
        let down: Vec<Vec<usize>> = (self.levels.iter().enumerate())
            .map(|(index, level)| level.down_depths.clone().unwrap_or(vec![unread(index); level.layers]))
            .collect();
        let up: Vec<Option<&Vec<usize>>> = self.levels.iter().map(|level| level.up_depths.as_ref()).collect();
        let plain = down.iter().zip(&up).all(|(down, up)| {
            let same = |depth: &usize| *depth == down[0];
            down.iter().all(same) && up.is_none_or(|up| up.iter().all(same))
        });
        if plain {
            let depths = down.iter().map(|depths| depths[0]).collect();
            keys.insert("transformer_layers_per_block".into(), one_or_many(depths));
            return;
        }
        let up = up.iter().zip(&self.levels).rev();
        let up: Vec<Vec<usize>> =
            up.map(|(up, level)| up.cloned().unwrap_or(vec![1; level.layers + 1])).collect();
        keys.insert("transformer_layers_per_block".into(), json!(down));
        keys.insert("reverse_transformer_layers_per_block".into(), json!(up));
    }
}

fn one_or_many(values: Vec<usize>) -> Value {
    if values.iter().all(|value| *value == values[0]) { json!(values[0]) } else { json!(values) }
}
