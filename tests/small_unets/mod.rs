//! Small U-Nets of every family with random weights, for tests that need one that runs.

#![cfg_attr(
    test,
    allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part of this module")
)]

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::UnitId;
use laptop_diff::data::Calibration;
use laptop_diff::model::files::weights::Weights;
use laptop_diff::model::network::Granularity;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::score::{CRITERIA, Criterion, Teacher, criterion};
use laptop_diff::select::{FORMAT, Predicted, Selection};
use serde_json::{Value, json};

/// Names and `config.json` of small relatives of SD v1.5, of SDXL, and of models pruned by hand.
pub(crate) fn configs() -> Vec<(&'static str, Value)> {
    let sd15 = json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": 8,
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 2,
        "attention_head_dim": 2,
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
    });
    let sdxl = json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": 8,
        "block_out_channels": [16, 32],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 3],
        "attention_head_dim": [2, 4],
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
        "use_linear_projection": true,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 58,
    });
    let mut without_mid = sdxl.clone();
    without_mid["mid_block_type"] = Value::Null;
    let mut pruned = sdxl.clone();
    pruned["removed_units"] = json!([
        "down_blocks.1.attentions.0.transformer_blocks.1",
        "mid_block.attentions.0.transformer_blocks.0.attn2",
        "mid_block.attentions.0.transformer_blocks.0.ff",
        "up_blocks.0.attentions.1.transformer_blocks.2.attn1",
        "up_blocks.1.resnets.0",
    ]);
    vec![("sd15", sd15), ("sdxl", sdxl), ("without-mid", without_mid), ("pruned", pruned)]
}

/// U-Nets of the families' structure, with few channels.
pub(crate) fn families() -> Vec<(&'static str, Value)> {
    let shared = json!({
        "norm_num_groups": 32,
        "layers_per_block": 2,
        "cross_attention_dim": 32,
    });
    let with = |more: Value| {
        let mut keys = shared.clone();
        keys.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        keys
    };
    let sd1 = with(json!({
        "sample_size": 64,
        "block_out_channels": [32, 64, 64, 64],
        "attention_head_dim": 8,
    }));
    let sd2 = with(json!({
        "sample_size": 96,
        "block_out_channels": [64, 64, 64, 64],
        "attention_head_dim": 1,
        "use_linear_projection": true,
    }));
    let sdxl = with(json!({
        "sample_size": 128,
        "block_out_channels": [64, 64, 64],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": 1,
        "use_linear_projection": true,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1568,
    }));
    vec![("sd1", sd1), ("sd2", sd2), ("sdxl", sdxl)]
}

/// Relatives of the families with two levels and what files of the original layout take for granted: 32 groups, and 8
/// heads or heads of 64 channels.
pub(crate) fn relatives() -> Vec<(&'static str, Value)> {
    let sd1 = json!({
        "sample_size": 64, "block_out_channels": [32, 32], "attention_head_dim": 8, "cross_attention_dim": 8,
        "norm_num_groups": 32, "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    });
    let with = |base: &Value, more: Value| {
        let mut keys = base.clone();
        keys.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        keys
    };
    let sd2 = with(
        &sd1,
        json!({ "sample_size": 96, "block_out_channels": [64, 64], "attention_head_dim": 1, "use_linear_projection": true }),
    );
    let sdxl = with(
        &sd2,
        json!({
            "sample_size": 128, "transformer_layers_per_block": [1, 3],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 1568,
        }),
    );
    let attention = json!({
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    });
    let per_layer = json!({
        "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [[1, 1], [2, 3]],
        "reverse_transformer_layers_per_block": [[3, 1, 2], [1, 1, 1]],
    });
    let mut all =
        vec![("sd1 attention", with(&sd1, attention.clone())), ("sdxl attention", with(&sdxl, attention))];
    all.push(("sdxl per layer", with(&sdxl, per_layer)));
    for (name, base) in [("sd1", sd1), ("sd2", sd2), ("sdxl", sdxl)] {
        all.push((name, base.clone()));
        for (more, keys) in [
            ("without mid", json!({ "mid_block_type": null })),
            ("mid without attention", json!({ "mid_block_type": "UNetMidBlock2D" })),
            ("one layer", json!({ "layers_per_block": 1 })),
        ] {
            all.push((more, with(&base, keys)));
        }
    }
    all
}

/// One of the [`relatives`].
pub(crate) fn relative(name: &str) -> Value {
    relatives().into_iter().find(|(found, _)| *found == name).expect("a relative").1
}

/// Random weights by name, of a size that keeps features near one.
pub(crate) fn weights(config: &UNetConfig, seed: u64) -> Result<HashMap<String, Tensor>> {
    let random = Random::new(seed, "weights");
    let inventory = config.inventory();
    let tensors = inventory.tensors().map(|entry| {
        let noise = random.normal(&entry.name, 0, &entry.shape, &Device::Cpu)?;
        let tensor = match entry.shape.as_slice() {
            [_] if entry.name.ends_with("bias") => (noise * 0.1)?,
            [_] => ((noise * 0.1)? + 1.0)?,
            [_, inputs @ ..] => (noise * (inputs.iter().product::<usize>() as f64).powf(-0.5))?,
            [] => noise,
        };
        Ok((entry.name.clone(), tensor))
    });
    tensors.collect()
}

/// Writes a bare U-Net's folder.
pub(crate) fn save(config: &Value, seed: u64, folder: &Path) -> miette::Result<()> {
    let shape = UNetConfig::parse(&config.to_string())?;
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("written");
    let tensors = weights(&shape, seed).expect("weights");
    candle_core::safetensors::save(&tensors, folder.join("diffusion_pytorch_model.safetensors"))
        .expect("written");
    Ok(())
}

/// Random points for a U-Net.
pub(crate) fn points(config: &UNetConfig, count: usize, seed: u64) -> Result<Calibration> {
    let random = Random::new(seed, "points");
    let normal = |name: &str, shape: &[usize]| random.normal(name, 0, shape, &Device::Cpu);
    let (height, width) = config.sample_size;
    let text = config.levels.iter().map(|level| level.cross_attention_dim).max().unwrap_or(1);
    let timestep: Vec<i64> = (0..count as i64).map(|point| (point * 389 + 7) % 1000).collect();
    let pooled = config.text_time.as_ref().map(|text_time| text_time.input_dim - 6 * text_time.time_dim);
    Ok(Calibration {
        sample: normal("sample", &[count, config.in_channels, height, width])?,
        timestep: Tensor::new(timestep, &Device::Cpu)?,
        noise: normal("noise", &[count, config.out_channels, height, width])?,
        latents: None,
        encoder_hidden_states: normal("text", &[count, 7, text])?,
        text_embeds: pooled.map(|size| normal("pooled", &[count, size])).transpose()?,
        time_ids: pooled.map(|_| normal("sizes", &[count, 6])?.affine(20.0, 64.0)).transpose()?,
    })
}

/// A selection that removes these units.
pub(crate) fn selection(config: &UNetConfig, removed: BTreeSet<UnitId>) -> Selection {
    let inventory = config.inventory();
    let gone = inventory.removable().iter().filter(|unit| removed.contains(&unit.id));
    Selection {
        format: FORMAT,
        criterion: "random".into(),
        objective: "additive".into(),
        solver: "random".into(),
        fits: None,
        layout: None,
        linear: false,
        ratio_asked: 0.5,
        ratio_reached: 0.5,
        removed_parameters: gone.map(|unit| unit.parameters).sum(),
        unet_parameters: inventory.parameters(),
        budgets: Vec::new(),
        predicted: Predicted::default(),
        refinement: None,
        front: Vec::new(),
        baselines: Vec::new(),
        removed: removed.into_iter().collect(),
    }
}

/// The configuration of a model as it was published.
pub(crate) fn published(name: &str) -> UNetConfig {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/configs");
    UNetConfig::read(&folder.join(format!("{name}.json"))).expect("a published configuration")
}

/// Every unit's id.
pub(crate) fn ids(config: &UNetConfig) -> Vec<UnitId> {
    config.inventory().units().iter().map(|unit| unit.id.clone()).collect()
}

/// The id of everything that can go, parts of blocks too.
pub(crate) fn fine_ids(config: &UNetConfig) -> Vec<UnitId> {
    config.inventory().removable().iter().map(|unit| unit.id.clone()).collect()
}

/// Granularities in which every kind of unit comes by itself and in a composite.
pub(crate) fn granularities() -> Vec<Granularity> {
    let texts = ["resnet,block", "resnet,transformer", "resnet,attn1,attn2,ff", "resnet,attn1", "attn2,ff"];
    texts.iter().map(|text| text.parse().expect("kinds that go together")).collect()
}

/// Stable Diffusion's noise schedule, for a model that predicts this.
pub(crate) fn schedule(prediction_type: &str) -> NoiseSchedule {
    let config = json!({
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
    });
    NoiseSchedule::from_config(&config).expect("Stable Diffusion's own")
}

/// A U-Net to be scored by every criterion but `delta-clip`.
pub(crate) fn teacher<'a>(
    unet: &'a UNet,
    weights: &'a Weights,
    points: &'a Calibration,
    schedule: &'a NoiseSchedule,
    random: &'a Random,
) -> Teacher<'a> {
    Teacher { unet, weights, points, schedule: Some(schedule), clip_score: None, random }
}

/// Every criterion with its default parameters.
pub(crate) fn criteria() -> Vec<Arc<dyn Criterion>> {
    CRITERIA.iter().map(|info| criterion(info.name).expect("a row of the table")).collect()
}

/// In place of a CLIP score: one that every unit has a part in.
pub(crate) fn brightness(unet: &UNet, points: &Calibration) -> f64 {
    let drawn = unet.forward(&points.sample, &points.timestep, &points.conditioning()).expect("a pass");
    let mean = drawn.abs().and_then(|drawn| drawn.mean_all()?.to_scalar::<f32>());
    f64::from(mean.expect("f32 on the CPU"))
}
