//! Flattens a U-Net's configuration into the list of its steps.

use std::collections::BTreeSet;

use super::config::{Level, Mid, UNetConfig};
use crate::base::UnitId;
use crate::model::network::removal;
use crate::model::network::spec::{ENTER, Groups, Kind, PARTS, Spec, block_id};

/// The steps of a U-Net in walk order, without its removed units.
pub(super) fn flatten(config: &UNetConfig) -> Vec<Spec> {
    let mut list = List { config, specs: Vec::new() };
    let outer = config.levels[0].channels;
    list.push("conv_in", Kind::ConvIn { inputs: config.in_channels, outputs: outer });
    list.push("skips.0", Kind::PushSkip);
    let mut skips = vec![outer];
    let last = config.levels.len() - 1;
    for (index, level) in config.levels.iter().enumerate() {
        list.down(index, level, index == last, &mut skips);
    }
    list.mid();
    for (index, level) in config.levels.iter().rev().enumerate() {
        let inner = config.levels[(last + 1 - index).min(last)].channels;
        list.up(index, level, inner, index == last, &mut skips);
    }
    let norm = norm(config);
    list.push("conv_out", Kind::ConvOut { inputs: outer, outputs: config.out_channels, norm });
    list.specs
}

/// Normalises a set of removed units and checks it against the complete U-Net; the error is the first unit that does
/// not exist.
pub(super) fn normalise(config: &UNetConfig, units: &BTreeSet<UnitId>) -> Result<BTreeSet<UnitId>, UnitId> {
    let whole = UNetConfig { removed_units: BTreeSet::new(), ..config.clone() };
    removal::normalise(&flatten(&whole), units)
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

    /// Adds the linear map in place of a removed unit, if it has one.
    fn map(&mut self, path: &str, kind: Kind) {
        if self.config.linear_units.contains(path) {
            self.push(path, kind);
        }
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
            let skip = skips.pop().expect("the down path stores as many features as the up path reads");
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
            false => {
                let (time, norm) = (self.config.time_embed_dim, norm(self.config));
                self.push(path, Kind::Resnet { inputs, outputs, time, norm });
            }
            true if inputs != outputs => self.push(path, Kind::Shortcut { inputs, outputs }),
            true => self.map(&path, Kind::Shortcut { inputs, outputs }),
        }
    }

    fn transformer(&mut self, stage: &str, index: usize, level: &Level, depth: Option<usize>) {
        let path = format!("{stage}.attentions.{index}");
        let Some(depth) = depth else { return };
        if self.removed(&path) {
            return self.map(&path, Kind::Shortcut { inputs: level.channels, outputs: level.channels });
        }
        let (channels, linear) = (level.channels, self.config.use_linear_projection);
        let groups = self.config.norm_num_groups;
        self.push(format!("{path}{ENTER}"), Kind::Enter { channels, groups, linear });
        for block in 0..depth {
            self.block(block_id(&path, block).as_str(), level);
        }
        self.push(path, Kind::Exit { channels, linear });
    }

    fn block(&mut self, path: &str, level: &Level) {
        if self.removed(path) {
            return self.map(path, Kind::Map { channels: level.channels });
        }
        let Level { channels, heads, cross_attention_dim: context, .. } = *level;
        let kinds = [
            Kind::SelfAttention { channels, heads },
            Kind::CrossAttention { channels, heads, context },
            Kind::FeedForward { channels },
        ];
        for ((part, _), kind) in PARTS.into_iter().zip(kinds) {
            let part = format!("{path}.{part}");
            match self.removed(&part) {
                false => self.push(part, kind),
                true => self.map(&part, Kind::Map { channels }),
            }
        }
        self.push(path, Kind::Block);
    }
}

/// The norm settings of every ResNet and of the last convolution.
fn norm(config: &UNetConfig) -> Groups {
    Groups { groups: config.norm_num_groups, eps: config.norm_eps }
}
