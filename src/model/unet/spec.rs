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
    /// A transformer block.
    Block { channels: usize, heads: usize, context: usize },
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
        let Level { channels, heads, cross_attention_dim: context, .. } = *level;
        self.push(format!("{path}{ENTER}"), Kind::Enter { channels });
        for block in 0..depth {
            let block = block_id(&path, block);
            if !self.removed(block.as_str()) {
                self.push(block.as_str(), Kind::Block { channels, heads, context });
            }
        }
        self.push(path, Kind::Exit { channels });
    }
}

/// The id of a block of the Transformer2D at `path`.
pub(super) fn block_id(path: &str, block: usize) -> UnitId {
    UnitId::from(format!("{path}.transformer_blocks.{block}"))
}
