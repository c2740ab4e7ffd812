//! A U-Net's configuration flattened to the list of its steps. Everything that is known of a U-Net
//! without its weights is read from this list, and the weights are read in its order.

use super::config::{Level, Mid, UNetConfig};
use crate::base::UnitId;

/// One step, by the path of the diffusers module whose output it completes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    pub(super) path: String,
    pub(super) kind: Kind,
}

/// What a step does to the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// The first convolution.
    ConvIn,
    /// Keeps the features for the way up.
    PushSkip,
    /// Appends the last kept features as channels.
    Concatenate,
    /// A ResNet, with a learned shortcut where the widths differ.
    Resnet { inputs: usize, outputs: usize },
    /// What remains of a removed ResNet whose widths differ.
    Shortcut { inputs: usize, outputs: usize },
    /// Opens a transformer's shell: norm, projection, from pixels to tokens.
    Enter { channels: usize },
    /// The first part of a transformer block: a norm and attention of the tokens to one another.
    SelfAttention { channels: usize, heads: usize },
    /// The second: a norm and attention of the tokens to the text.
    CrossAttention { channels: usize, heads: usize, context: usize },
    /// The third: a norm and the gated feed-forward layer.
    FeedForward { channels: usize },
    /// Does nothing: the tokens are a transformer block's output.
    Block,
    /// Closes a transformer's shell: back to pixels, projection, residual.
    Exit { channels: usize },
    /// Halves the resolution.
    Downsample { channels: usize },
    /// Doubles the resolution.
    Upsample { channels: usize },
    /// Does nothing: the features are a stage's output.
    Stage,
    /// The last norm and convolution.
    ConvOut,
}

/// The parts of a transformer block in walk order, each with the norm that it owns.
pub(super) const PARTS: [(&str, &str); 3] = [("attn1", "norm1"), ("attn2", "norm2"), ("ff", "norm3")];

/// The path of the first half of a shell; the second has the path of the Transformer2D itself.
pub(super) const ENTER: &str = ".proj_in";

/// The steps of a U-Net in walk order, without its removed units.
pub(super) fn flatten(config: &UNetConfig) -> Vec<Spec> {
    let mut list = List { config, specs: Vec::new() };
    list.push("conv_in", Kind::ConvIn);
    list.push("skips.0", Kind::PushSkip);
    let mut skips = vec![config.levels[0].channels];
    let last = config.levels.len() - 1;
    for (index, level) in config.levels.iter().enumerate() {
        list.down(index, level, index == last, &mut skips);
    }
    list.mid();
    for (index, level) in config.levels.iter().rev().enumerate() {
        let inner = config.levels[(last + 1 - index).min(last)].channels;
        list.up(index, level, inner, index == last, &mut skips);
    }
    list.push("conv_out", Kind::ConvOut);
    list.specs
}

struct List<'a> {
    config: &'a UNetConfig,
    specs: Vec<Spec>,
}

impl List<'_> {
    fn push(&mut self, path: impl Into<String>, kind: Kind) {
        self.specs.push(Spec { path: path.into(), kind });
    }

    fn removed(&self, path: &str) -> bool {
        self.config.removed_units.contains(path)
    }

    fn down(&mut self, index: usize, level: &Level, innermost: bool, skips: &mut Vec<usize>) {
        let stage = format!("down_blocks.{index}");
        let mut inputs = *skips.last().expect("the first convolution's output is kept");
        for layer in 0..level.layers {
            self.resnet(&stage, layer, inputs, level.channels);
            self.transformer(&stage, layer, level, level.down_depths.as_ref().map(|depths| depths[layer]));
            self.push(format!("{stage}.skips.{layer}"), Kind::PushSkip);
            skips.push(level.channels);
            inputs = level.channels;
        }
        if !innermost {
            self.push(format!("{stage}.downsamplers.0"), Kind::Downsample { channels: level.channels });
            self.push(format!("{stage}.skips.{}", level.layers), Kind::PushSkip);
            skips.push(level.channels);
        }
        self.push(stage, Kind::Stage);
    }

    fn mid(&mut self) {
        let level = self.config.innermost();
        if self.config.mid == Mid::None {
            return;
        }
        self.resnet("mid_block", 0, level.channels, level.channels);
        if let Mid::CrossAttention { depth } = self.config.mid {
            self.transformer("mid_block", 0, level, Some(depth));
            self.resnet("mid_block", 1, level.channels, level.channels);
        }
        self.push("mid_block", Kind::Stage);
    }

    fn up(&mut self, index: usize, level: &Level, inner: usize, outermost: bool, skips: &mut Vec<usize>) {
        let stage = format!("up_blocks.{index}");
        let mut inputs = inner;
        for layer in 0..=level.layers {
            let skip = skips.pop().expect("the way down keeps as many features as the way up takes");
            self.push(format!("{stage}.skips.{layer}"), Kind::Concatenate);
            self.resnet(&stage, layer, inputs + skip, level.channels);
            self.transformer(&stage, layer, level, level.up_depths.as_ref().map(|depths| depths[layer]));
            inputs = level.channels;
        }
        if !outermost {
            self.push(format!("{stage}.upsamplers.0"), Kind::Upsample { channels: level.channels });
        }
        self.push(stage, Kind::Stage);
    }

    fn resnet(&mut self, stage: &str, index: usize, inputs: usize, outputs: usize) {
        let path = format!("{stage}.resnets.{index}");
        match self.removed(&path) {
            false => self.push(path, Kind::Resnet { inputs, outputs }),
            true if inputs != outputs => self.push(path, Kind::Shortcut { inputs, outputs }),
            true => {}
        }
    }

    fn transformer(&mut self, stage: &str, index: usize, level: &Level, depth: Option<usize>) {
        let path = format!("{stage}.attentions.{index}");
        let Some(depth) = depth.filter(|_| !self.removed(&path)) else { return };
        let channels = level.channels;
        self.push(format!("{path}{ENTER}"), Kind::Enter { channels });
        for block in 0..depth {
            self.block(block_id(&path, block).as_str(), level);
        }
        self.push(path, Kind::Exit { channels });
    }

    fn block(&mut self, path: &str, level: &Level) {
        if self.removed(path) {
            return;
        }
        let Level { channels, heads, cross_attention_dim: context, .. } = *level;
        let kinds = [
            Kind::SelfAttention { channels, heads },
            Kind::CrossAttention { channels, heads, context },
            Kind::FeedForward { channels },
        ];
        for ((part, _), kind) in PARTS.into_iter().zip(kinds) {
            let part = format!("{path}.{part}");
            if !self.removed(&part) {
                self.push(part, kind);
            }
        }
        self.push(path, Kind::Block);
    }
}

/// Whether a module or tensor lies inside of a module.
pub(super) fn within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}

/// The path of the norm that a part of a transformer block owns; it lies beside the part.
pub(super) fn norm_of(part: &str) -> Option<String> {
    let (block, name) = part.rsplit_once('.')?;
    let (_, norm) = PARTS.into_iter().find(|(part, _)| *part == name)?;
    Some(format!("{block}.{norm}"))
}

/// The id of a block of the Transformer2D at `path`.
pub(super) fn block_id(path: &str, block: usize) -> UnitId {
    UnitId::from(format!("{path}.transformer_blocks.{block}"))
}
