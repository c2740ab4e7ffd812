//! What a checkpoint's models are, from the names and shapes of their tensors: it has no configuration.
//! What shapes do not tell (heads, epsilons, factors) is what Stable Diffusion 1.x, 2.x and SDXL have.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::places::TextPlace;
use crate::base::UnitId;
use crate::model::clip::TextLayout;
use crate::model::files::Weights;
use crate::model::unet::{Level, Mid, TextTime, UNetConfig};

/// SD 1.x has as many heads at every level; later models have heads of as many channels.
const HEADS: usize = 8;
const HEAD_CHANNELS: usize = 64;
/// Width of SDXL's embedding of each of its six sizes.
const SIZE_CHANNELS: usize = 256;
const SIZES: usize = 6;
/// Width of SD 2.x's text.
const SD2_CONTEXT: usize = 1024;

/// Shapes of the tensors at a prefix. What is missing is named in words.
pub(super) struct Shapes<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(weights: &'a Weights, prefix: &str) -> Self {
        Self { weights, prefix: prefix.to_owned() }
    }

    fn within(&self, inside: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: format!("{}{inside}.", self.prefix) }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.weights.contains(&format!("{}{name}", self.prefix))
    }

    pub(super) fn size(&self, name: &str, dimension: usize) -> Result<usize, String> {
        let name = format!("{}{name}", self.prefix);
        let shape = self.weights.shape(&name).map_err(|_| format!("there is no `{name}`"))?;
        shape.get(dimension).copied().ok_or_else(|| format!("`{name}` has the shape {shape:?}"))
    }

    /// How many modules `module.0`, `module.1`, … have the tensor `probe`.
    pub(super) fn count(&self, module: &str, probe: &str) -> usize {
        (0..).take_while(|index| self.has(&format!("{module}.{index}.{probe}"))).count()
    }

    /// Blocks of the transformer here; `None` if there is none.
    fn depth(&self) -> Option<usize> {
        self.has("proj_in.weight").then(|| self.count("transformer_blocks", "norm1.weight"))
    }
}

/// A level as it is found on one way.
#[derive(Default)]
struct Found {
    channels: usize,
    depths: Vec<Option<usize>>,
}

/// The U-Net whose tensors `shapes` has.
pub(super) fn unet(shapes: &Shapes<'_>) -> Result<UNetConfig, String> {
    let (down, blocks) = way_down(shapes)?;
    let mid = shapes.within("middle_block").within(1).depth();
    let up = way_up(shapes, &down)?;
    let middle = mid.is_some_and(|depth| depth > 0).then(|| "middle_block".to_owned());
    let first = blocks.first().or(middle.as_ref()).map(|block| shapes.within(block).within(1));
    let (linear, context) = match &first {
        Some(shell) => (
            shell.weights.shape(&format!("{}proj_in.weight", shell.prefix)).map_or(0, |shape| shape.len())
                == 2,
            shell.size("transformer_blocks.0.attn2.to_k.weight", 1)?,
        ),
        None => {
            return Err("it has no transformer with a block, so that the width of its text is unknown".into());
        }
    };
    let heads = |channels: usize| if linear { channels.div_ceil(HEAD_CHANNELS) } else { HEADS };
    let mut removed_units = BTreeSet::new();
    let last = down.len() - 1;
    let levels = (0..down.len())
        .map(|level| {
            let mut depths = |way: &str, stage: usize, found: &Found| {
                let stage = format!("{way}_blocks.{stage}");
                let shared = (way == "down" && level == last).then_some(mid).flatten();
                depths_of(&stage, &found.depths, shared, &mut removed_units)
            };
            let (here, back) = (&down[level], &up[last - level]);
            Level {
                channels: here.channels,
                heads: heads(here.channels),
                cross_attention_dim: context,
                layers: here.depths.len(),
                down_depths: depths("down", level, here),
                up_depths: depths("up", last - level, back),
            }
        })
        .collect::<Vec<_>>();
    let text_time = match shapes.has("label_emb.0.0.weight") {
        true => {
            let input_dim = shapes.size("label_emb.0.0.weight", 1)?;
            // Of SD 2.x those that begin from pictures (unCLIP) have a second condition too.
            if input_dim <= SIZES * SIZE_CHANNELS || context == SD2_CONTEXT {
                return Err(format!("its second condition has a width of {input_dim}, which is not SDXL's"));
            }
            Some(TextTime { time_dim: SIZE_CHANNELS, input_dim })
        }
        false => None,
    };
    let mid = match (mid, shapes.has("middle_block.0.in_layers.0.weight")) {
        (Some(depth), _) => {
            let shared = levels[last].down_depths.as_ref().map_or(depth, |depths| depths[0]);
            drop_blocks("mid_block.attentions.0", depth..shared, &mut removed_units);
            Mid::CrossAttention { depth: shared }
        }
        (None, true) if shapes.has("middle_block.1.in_layers.0.weight") => {
            return Err("two ResNets without a transformer between them lie in its middle".into());
        }
        (None, true) => Mid::Resnet,
        (None, false) => Mid::None,
    };
    let side = match (&text_time, linear) {
        (Some(_), _) => 128,
        (None, true) => 96,
        (None, false) => 64,
    };
    Ok(UNetConfig {
        in_channels: shapes.size("input_blocks.0.0.weight", 1)?,
        out_channels: shapes.size("out.2.weight", 0)?,
        sample_size: (side, side),
        levels,
        mid,
        norm_num_groups: 32,
        norm_eps: 1e-5,
        use_linear_projection: linear,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        time_embed_dim: shapes.size("time_embed.0.weight", 0)?,
        text_time,
        removed_units,
    })
}

/// The levels of the way down, and the blocks in which a transformer has a block.
fn way_down(shapes: &Shapes<'_>) -> Result<(Vec<Found>, Vec<String>), String> {
    let (mut levels, mut attending) = (vec![Found::default()], Vec::new());
    for block in 1.. {
        let name = format!("input_blocks.{block}");
        let here = shapes.within(&name);
        if here.has("0.op.weight") {
            levels.push(Found::default());
        } else if here.has("0.out_layers.3.weight") {
            let depth = here.within(1).depth();
            if depth.is_some_and(|depth| depth > 0) {
                attending.push(name);
            }
            let level = levels.last_mut().expect("it begins with one and only grows");
            level.channels = here.size("0.out_layers.3.weight", 0)?;
            level.depths.push(depth);
        } else {
            break;
        }
    }
    let outputs = (0..).map(|block| format!("output_blocks.{block}"));
    let outputs = outputs.take_while(|block| shapes.has(&format!("{block}.0.in_layers.0.weight")));
    attending.extend(
        outputs.filter(|block| shapes.within(block).within(1).depth().is_some_and(|depth| depth > 0)),
    );
    match levels.iter().position(|level| level.depths.is_empty()) {
        Some(level) => Err(format!("level {level} of its way down has no ResNet")),
        None => Ok((levels, attending)),
    }
}

/// The levels of the way up, the innermost first; each has one layer more than on the way down.
fn way_up(shapes: &Shapes<'_>, down: &[Found]) -> Result<Vec<Found>, String> {
    let mut block = 0;
    let mut levels = Vec::new();
    for level in down.iter().rev() {
        let mut found = Found { channels: level.channels, depths: Vec::new() };
        for _ in 0..=level.depths.len() {
            let here = shapes.within(format!("output_blocks.{block}"));
            here.size("0.out_layers.3.weight", 0)?;
            found.depths.push(here.within(1).depth());
            block += 1;
        }
        levels.push(found);
    }
    Ok(levels)
}

/// A level's depths; where some layers have no transformer, those count as removed. `shared` is the depth in the
/// middle, which the first layer of the innermost way down has too.
fn depths_of(
    stage: &str,
    found: &[Option<usize>],
    shared: Option<usize>,
    removed: &mut BTreeSet<UnitId>,
) -> Option<Vec<usize>> {
    if found.iter().all(Option::is_none) {
        return None;
    }
    let depths = found.iter().enumerate().map(|(layer, &depth)| {
        let path = format!("{stage}.attentions.{layer}");
        let least = if layer == 0 { shared.unwrap_or(0) } else { 0 };
        match depth {
            Some(depth) => {
                drop_blocks(&path, depth..depth.max(least), removed);
                depth.max(least)
            }
            None => {
                removed.insert(UnitId::from(path));
                least.max(1)
            }
        }
    });
    Some(depths.collect())
}

fn drop_blocks(path: &str, blocks: std::ops::Range<usize>, removed: &mut BTreeSet<UnitId>) {
    removed.extend(blocks.map(|block| UnitId::from(format!("{path}.transformer_blocks.{block}"))));
}

/// `config.json` of the autoencoder whose tensors `shapes` has, in diffusers' words.
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
        // The factor of CompVis' first stage, and that of SDXL's.
        "scaling_factor": if is_sdxl { 0.13025 } else { 0.18215 },
        "force_upcast": is_sdxl,
    }))
}

/// `config.json` of the text encoder whose tensors `shapes` has, and how many layers of it are read.
pub(super) fn text(shapes: &Shapes<'_>, place: &TextPlace) -> Result<(Value, usize), String> {
    let TextPlace { layout, projection, skip_last, .. } = *place;
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
    let layers = layers.saturating_sub(usize::from(skip_last));
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
