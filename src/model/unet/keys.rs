//! The keys of a U-Net's `config.json` that choose another computation than ours. Together with the fields of `Raw` they
//! are the parameters of diffusers 0.42.1's `UNet2DConditionModel`.

use serde_json::Value;

use super::error::ConfigError;
use super::json::CLASS;

/// Keys that change the arithmetic, with the only supported value of each. `upcast_attention` is not included: our
/// attention always accumulates in f32.
const FIXED: &[(&str, &str)] = &[
    ("attention_type", r#""default""#),
    ("center_input_sample", "false"),
    ("class_embed_type", "null"),
    ("class_embeddings_concat", "false"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("cross_attention_norm", "null"),
    ("downsample_padding", "1"),
    ("dual_cross_attention", "false"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_scale_factor", "1"),
    ("num_attention_heads", "null"),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_out_scale_factor", "1"),
    ("resnet_skip_time_act", "false"),
    ("resnet_time_scale_shift", r#""default""#),
    ("time_cond_proj_dim", "null"),
    ("time_embedding_act_fn", "null"),
    ("time_embedding_type", r#""positional""#),
    ("timestep_post_act", "null"),
];

/// Keys without effect on the blocks that are supported: `dropout` acts only in diffusers' training,
/// `mid_block_only_cross_attention` only in `UNetMidBlock2DSimpleCrossAttn`, `addition_embed_type_num_heads` only with an
/// embedding of text.
const WITHOUT_EFFECT: &[&str] =
    &["addition_embed_type_num_heads", "dropout", "mid_block_only_cross_attention", "upcast_attention"];

/// The classes whose `config.json` this is. The second is that of exports with their own code.
const CLASSES: [&str; 2] = [CLASS, "PrunedUNet2DConditionModel"];

/// Texts with several supported values: the classes, and two names of one function.
const CHOICES: &[(&str, &[&str])] = &[("_class_name", &CLASSES), ("act_fn", &["silu", "swish"])];

/// Written by our own exports, for diffusers' loader of code.
const AUTO_MAP: &str = "auto_map";

/// Whether a key is one of those above.
pub(super) fn is_known(key: &str) -> bool {
    let fixed = FIXED.iter().map(|(key, _)| *key).chain(CHOICES.iter().map(|(key, _)| *key));
    fixed.chain(WITHOUT_EFFECT.iter().copied()).chain([AUTO_MAP]).any(|known| known == key)
}

/// Fails on the first key with an unsupported value.
pub(super) fn check(config: &Value) -> Result<(), ConfigError> {
    CHOICES.iter().try_for_each(|(key, choices)| check_choice(config, key, choices))?;
    check_fixed(config)
}

/// A text that must be one of `choices`; an absent key is one of them by default.
fn check_choice(config: &Value, key: &'static str, choices: &[&str]) -> Result<(), ConfigError> {
    match &config[key] {
        Value::Null => Ok(()),
        found if found.as_str().is_some_and(|found| choices.contains(&found)) => Ok(()),
        found => {
            let needed = choices.join(" or ");
            Err(ConfigError::Unsupported { key, found: found.to_string(), needed })
        }
    }
}

fn check_fixed(config: &Value) -> Result<(), ConfigError> {
    for &(key, needed) in FIXED {
        let needed: Value = serde_json::from_str(needed)?;
        let same = |found: &Value| match (found.as_f64(), needed.as_f64()) {
            (Some(found), Some(needed)) => found == needed,
            _ => *found == needed,
        };
        let accepted = match &config[key] {
            // An absent key has diffusers' default, which is the supported value.
            Value::Null => true,
            Value::Array(each) => each.iter().all(same),
            found => same(found),
        };
        if !accepted {
            let (found, needed) = (config[key].to_string(), needed.to_string());
            return Err(ConfigError::Unsupported { key, found, needed });
        }
    }
    Ok(())
}
