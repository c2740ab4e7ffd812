//! The configurations of a checkpoint's autoencoder and text encoders, derived from the names and shapes of their
//! tensors and returned as the `config.json` that diffusers and transformers write. Values that shapes do not determine
//! (heads, scaling factors) are those of Stable Diffusion 1.x, 2.x and SDXL.

use serde_json::{Value, json};

use super::places::TextPlace;
use super::shapes::Shapes;
use crate::model::clip::TextLayout;

/// Channels per head in every text encoder.
const HEAD_CHANNELS: usize = 64;

/// `config.json` of the autoencoder with the tensors of `shapes`, with diffusers' keys.
pub(super) fn vae(shapes: &Shapes<'_>, is_sdxl: bool) -> Result<Value, String> {
    let levels = shapes.count("encoder.down", "block.0.norm1.weight");
    let channels = (0..levels)
        .map(|level| shapes.size(&format!("encoder.down.{level}.block.0.conv2.weight"), 0))
        .collect::<Result<Vec<_>, _>>()?;
    let types = |kind: &str| vec![kind.to_owned(); levels];
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": types("DownEncoderBlock2D"),
        "up_block_types": types("UpDecoderBlock2D"),
        "in_channels": shapes.size("encoder.conv_in.weight", 1)?,
        "out_channels": shapes.size("decoder.conv_out.weight", 0)?,
        "latent_channels": shapes.size("post_quant_conv.weight", 0)?,
        "layers_per_block": shapes.count("encoder.down.0.block", "norm1.weight"),
        "norm_num_groups": 32,
        "sample_size": if is_sdxl { 1024 } else { 512 },
        // The scaling factors of CompVis' first stage and of SDXL's.
        "scaling_factor": if is_sdxl { 0.13025 } else { 0.18215 },
        "force_upcast": is_sdxl,
    }))
}

/// `config.json` of the text encoder with the tensors of `shapes`, and how many of its layers are used.
pub(super) fn text(shapes: &Shapes<'_>, place: &TextPlace) -> Result<(Value, usize), String> {
    let TextPlace { layout, projection, skip_last_of, .. } = *place;
    let (embedding, positions, layers, fc1) = match layout {
        TextLayout::Transformers => (
            "text_model.embeddings.token_embedding.weight",
            "text_model.embeddings.position_embedding.weight",
            shapes.count("text_model.encoder.layers", "layer_norm1.weight"),
            "text_model.encoder.layers.0.mlp.fc1.weight",
        ),
        TextLayout::OpenClip => (
            "token_embedding.weight",
            "positional_embedding",
            shapes.count("transformer.resblocks", "ln_1.weight"),
            "transformer.resblocks.0.mlp.c_fc.weight",
        ),
    };
    let layers = if Some(layers) == skip_last_of { layers - 1 } else { layers };
    let (vocabulary, hidden) = (shapes.size(embedding, 0)?, shapes.size(embedding, 1)?);
    let open_clip = layout == TextLayout::OpenClip;
    let config = json!({
        "architectures": [if projection { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": shapes.size(fc1, 0)?,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden.div_ceil(HEAD_CHANNELS),
        "max_position_embeddings": shapes.size(positions, 0)?,
        "projection_dim": match (open_clip, projection) {
            (true, true) => shapes.size("text_projection", 1)?,
            (false, true) => shapes.size("text_projection.weight", 0)?,
            _ => hidden,
        },
        "hidden_act": if open_clip { "gelu" } else { "quick_gelu" },
        "layer_norm_eps": 1e-5,
        "bos_token_id": vocabulary.saturating_sub(2),
        "eos_token_id": vocabulary.saturating_sub(1),
    });
    Ok((config, layers))
}
