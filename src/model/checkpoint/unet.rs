//! The configuration of a checkpoint's U-Net, derived from the names and shapes of its tensors, because a checkpoint
//! has no configuration. Values that shapes do not determine (heads, epsilons) are those of Stable Diffusion 1.x, 2.x
//! and SDXL.

use std::collections::BTreeSet;

use super::shapes::Shapes;
use crate::base::UnitId;
use crate::model::unet::{Level, Mid, SIZES, TextTime, UNetConfig};

/// SD 1.x has this many heads at every level; later models have heads of [`HEAD_CHANNELS`] channels.
const HEADS: usize = 8;
/// Channels per head in SD 2.x and SDXL.
const HEAD_CHANNELS: usize = 64;
/// Width of SDXL's embedding of each of the six sizes.
const SIZE_CHANNELS: usize = 256;
/// Width of the text states of SD 2.x.
const SD2_CONTEXT: usize = 1024;

/// A level of the down or up path, as found in the file.
#[derive(Default)]
struct Found {
    channels: usize,
    depths: Vec<Option<usize>>,
    /// The block of the file that contains each layer.
    blocks: Vec<String>,
}

/// The configuration of the U-Net with the tensors of `shapes`, and the prefixes of transformers without a block that
/// this configuration cannot express: it has the depth of the middle for the innermost level too. Exports pad a removed
/// transformer with such a shell of zeros.
pub(super) fn unet(shapes: &Shapes<'_>) -> Result<(UNetConfig, Vec<String>), String> {
    let (down, attending) = way_down(shapes)?;
    let up = way_up(shapes, &down)?;
    let mid = shapes.within("middle_block").within(1).depth();
    let (linear, context) = shell(shapes, &attending, mid)?;
    let text_time = text_time(shapes, context)?;
    let mut removed_units = BTreeSet::new();
    let levels = levels(&down, &up, mid, (linear, context), &mut removed_units);
    let shells = empty_shells(&down, &levels, mid);
    let mid = middle(shapes, mid, &levels, &mut removed_units)?;
    let side = match (&text_time, linear) {
        (Some(_), _) => 128,
        (None, true) => 96,
        (None, false) => 64,
    };
    let config = UNetConfig {
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
        linear_units: BTreeSet::new(),
    };
    Ok((config, shells))
}

/// The transformers without a block whose configuration has blocks.
fn empty_shells(down: &[Found], levels: &[Level], mid: Option<usize>) -> Vec<String> {
    let configured = levels.last().and_then(|level| level.down_depths.as_ref()).map(|depths| depths[0]);
    if configured.is_none_or(|depth| depth == 0) {
        return Vec::new();
    }
    let innermost = down.last().map(|found| (found.depths[0], format!("{}.1.", found.blocks[0])));
    let found = innermost.into_iter().chain([(mid, "middle_block.1.".to_owned())]);
    found.filter(|(depth, _)| *depth == Some(0)).map(|(_, prefix)| prefix).collect()
}

/// Whether transformers project with a linear layer, and the width of the text states that they read. Both are read
/// from the first transformer that has a block.
fn shell(shapes: &Shapes<'_>, attending: &[String], mid: Option<usize>) -> Result<(bool, usize), String> {
    let middle = mid.is_some_and(|depth| depth > 0).then(|| "middle_block".to_owned());
    let Some(first) = attending.first().or(middle.as_ref()) else {
        return Err("no transformer has a block, so the width of the text is unknown".to_owned());
    };
    let shell = shapes.within(first).within(1);
    let context = shell.size("transformer_blocks.0.attn2.to_k.weight", 1)?;
    Ok((shell.rank("proj_in.weight") == 2, context))
}

fn levels(
    down: &[Found],
    up: &[Found],
    mid: Option<usize>,
    (linear, context): (bool, usize),
    removed_units: &mut BTreeSet<UnitId>,
) -> Vec<Level> {
    let last = down.len() - 1;
    let mut depths = |way: &str, stage: usize, found: &Found| {
        let stage_path = format!("{way}_blocks.{stage}");
        let shared = (way == "down" && stage == last).then_some(mid).flatten();
        depths_of(&stage_path, &found.depths, shared, removed_units)
    };
    let level = |level: usize| {
        let (here, back) = (&down[level], &up[last - level]);
        Level {
            channels: here.channels,
            heads: if linear { here.channels.div_ceil(HEAD_CHANNELS) } else { HEADS },
            cross_attention_dim: context,
            layers: here.depths.len(),
            down_depths: depths("down", level, here),
            up_depths: depths("up", last - level, back),
        }
    };
    (0..down.len()).map(level).collect()
}

/// SDXL's second condition.
fn text_time(shapes: &Shapes<'_>, context: usize) -> Result<Option<TextTime>, String> {
    if !shapes.has("label_emb.0.0.weight") {
        return Ok(None);
    }
    let input_dim = shapes.size("label_emb.0.0.weight", 1)?;
    // The image-conditioned variants of SD 2.x (unCLIP) have a second condition too.
    if input_dim <= SIZES * SIZE_CHANNELS || context == SD2_CONTEXT {
        return Err(format!("its second condition has a width of {input_dim}, which is not SDXL's"));
    }
    Ok(Some(TextTime { time_dim: SIZE_CHANNELS, input_dim }))
}

/// The middle of the U-Net, given the depth of its transformer.
fn middle(
    shapes: &Shapes<'_>,
    mid: Option<usize>,
    levels: &[Level],
    removed_units: &mut BTreeSet<UnitId>,
) -> Result<Mid, String> {
    match (mid, shapes.has("middle_block.0.in_layers.0.weight")) {
        (Some(depth), _) => {
            let innermost = levels.last().and_then(|level| level.down_depths.as_ref());
            let shared = innermost.map_or(depth, |depths| depths[0]);
            drop_blocks("mid_block.attentions.0", depth..shared, removed_units);
            Ok(Mid::CrossAttention { depth: shared })
        }
        (None, true) if shapes.has("middle_block.1.in_layers.0.weight") => {
            Err("its middle block has two ResNets without a transformer between them".to_owned())
        }
        (None, true) => Ok(Mid::Resnet),
        (None, false) => Ok(Mid::None),
    }
}

/// The levels of the down path, and the blocks whose transformer has at least one block.
fn way_down(shapes: &Shapes<'_>) -> Result<(Vec<Found>, Vec<String>), String> {
    let (mut levels, mut attending) = (vec![Found::default()], Vec::new());
    for block in 1.. {
        let block_name = format!("input_blocks.{block}");
        let here = shapes.within(&block_name);
        if here.has("0.op.weight") {
            levels.push(Found::default());
        } else if here.has("0.out_layers.3.weight") {
            let depth = here.within(1).depth();
            if depth.is_some_and(|depth| depth > 0) {
                attending.push(block_name.clone());
            }
            let level = levels.last_mut().expect("the list starts with one level and only grows");
            level.channels = here.size("0.out_layers.3.weight", 0)?;
            level.depths.push(depth);
            level.blocks.push(block_name);
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
        Some(level) => Err(format!("level {level} of its down path has no ResNet")),
        None => Ok((levels, attending)),
    }
}

/// The levels of the up path, innermost first; each has one layer more than on the down path.
fn way_up(shapes: &Shapes<'_>, down: &[Found]) -> Result<Vec<Found>, String> {
    let mut block = 0;
    let mut levels = Vec::new();
    for level in down.iter().rev() {
        let mut found = Found { channels: level.channels, ..Found::default() };
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

/// A level's depths; layers without a transformer count as removed where others have one. `shared` is the depth in the
/// middle, which is also the depth of the first layer of the innermost level of the down path.
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
