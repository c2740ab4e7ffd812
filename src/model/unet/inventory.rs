//! A U-Net known from its configuration alone: names and shapes of its tensors, its units, its cost.

use std::ops::Range;

use candle_core::Result;

use super::config::UNetConfig;
use super::embedding::Embedding;
use super::spec::{ENTER, Kind, Spec, flatten};
use super::step::Step;
use super::unit::{Unit, UnitKind};
use crate::base::UnitId;
use crate::model::ledger::{Ledger, TensorEntry};

/// Tokens of text that attention reads: the length of CLIP's context.
const TEXT_TOKENS: u64 = 77;

/// A learned shortcut is part of its step but not of its unit.
const SHORTCUT: &str = "conv_shortcut";

/// What a configuration says of its U-Net.
#[derive(Clone, Debug)]
pub struct Inventory {
    config: UNetConfig,
    specs: Vec<Spec>,
    /// Tensors of the time and size embeddings.
    embedding: Vec<TensorEntry>,
    /// Tensors of each step.
    steps: Vec<Vec<TensorEntry>>,
    units: Vec<Unit>,
}

impl UNetConfig {
    /// Names, shapes, units and cost, without weights.
    pub fn inventory(&self) -> Inventory {
        Inventory::new(self).expect("BUG: a ledger answers every request for a tensor")
    }
}

impl Inventory {
    fn new(config: &UNetConfig) -> Result<Self> {
        let specs = flatten(config);
        let ledger = Ledger::default();
        let vb = ledger.builder();
        Embedding::new(config, vb.clone())?;
        let embedding = ledger.take();
        let mut steps = Vec::with_capacity(specs.len());
        for spec in &specs {
            Step::new(spec, config, &vb)?;
            steps.push(ledger.take());
        }
        let mut inventory = Self { config: config.clone(), specs, embedding, steps, units: Vec::new() };
        inventory.units = inventory.find_units();
        Ok(inventory)
    }

    pub(super) fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// The units in walk order, each Transformer2D before its blocks. A Transformer2D with one block is
    /// one unit, because the block cannot go without the shell.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Every tensor, in the order in which the steps use them.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.embedding.iter().chain(self.steps.iter().flatten())
    }

    /// The tensors that go when `unit` is removed.
    pub fn tensors_of(&self, unit: &Unit) -> impl Iterator<Item = &TensorEntry> {
        self.branch(unit.steps.clone())
    }

    /// The number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().map(TensorEntry::parameters).sum()
    }

    /// Multiply-accumulates of one forward pass of one sample with latents of this size.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        let embedding: u64 = self.embedding.iter().map(weight_macs).sum();
        embedding + self.macs_per_step((height, width)).iter().map(|macs| macs.0 + macs.1).sum::<u64>()
    }

    /// The most numbers that the walk of one sample with latents of this size keeps at once: the features, those that a
    /// layer or a shell makes of them, and the skips.
    pub fn state_elements(&self, height: usize, width: usize) -> u64 {
        let (mut channels, mut most, mut skips) = (self.config.in_channels as u64, 0, Vec::new());
        for (spec, pixels) in self.specs.iter().zip(self.pixels_per_step((height, width))) {
            match spec.kind {
                Kind::ConvIn => channels = self.config.levels[0].channels as u64,
                Kind::PushSkip => skips.push((channels, channels * pixels)),
                Kind::Concatenate => channels += skips.pop().map_or(0, |(channels, _)| channels),
                Kind::Resnet { outputs, .. } | Kind::Shortcut { outputs, .. } => channels = outputs as u64,
                _ => {}
            }
            most = most.max(2 * channels * pixels + skips.iter().map(|(_, elements)| elements).sum::<u64>());
        }
        most
    }

    fn branch(&self, steps: Range<usize>) -> impl Iterator<Item = &TensorEntry> {
        self.steps[steps].iter().flatten().filter(|entry| !is_shortcut(entry))
    }

    fn find_units(&self) -> Vec<Unit> {
        let macs = self.macs_per_step(self.config.sample_size);
        let unit = |id: &str, kind, steps: Range<usize>, parent: Option<&UnitId>| Unit {
            id: UnitId::from(id),
            kind,
            parameters: self.branch(steps.clone()).map(TensorEntry::parameters).sum(),
            macs: macs[steps.clone()].iter().map(|macs| macs.0).sum(),
            has_shortcut: self.steps[steps.clone()].iter().flatten().any(is_shortcut),
            parent: parent.cloned(),
            steps,
        };
        let mut units = Vec::new();
        for (start, spec) in self.specs.iter().enumerate() {
            match spec.kind {
                Kind::Resnet { .. } => {
                    units.push(unit(&spec.path, UnitKind::Resnet, start..start + 1, None));
                }
                Kind::Enter { .. } => {
                    let path = spec.path.trim_end_matches(ENTER);
                    let inside = self.specs[start + 1..].iter().take_while(|spec| spec.path != path).count();
                    let whole = unit(path, UnitKind::Transformer, start..start + inside + 2, None);
                    let id = whole.id.clone();
                    units.push(whole);
                    let inside = start + 1..start + 1 + inside;
                    let ends: Vec<_> =
                        inside.clone().filter(|&step| self.specs[step].kind == Kind::Block).collect();
                    if ends.len() > 1 {
                        let mut first = inside.start;
                        for end in ends {
                            units.push(unit(
                                &self.specs[end].path,
                                UnitKind::Block,
                                first..end + 1,
                                Some(&id),
                            ));
                            first = end + 1;
                        }
                    }
                }
                _ => {}
            }
        }
        units
    }

    /// The resolution that each step leaves.
    fn pixels_per_step(&self, (mut height, mut width): (usize, usize)) -> impl Iterator<Item = u64> {
        let mut skips = Vec::new();
        self.specs.iter().map(move |spec| {
            match spec.kind {
                Kind::PushSkip => skips.push((height, width)),
                Kind::Concatenate => drop(skips.pop()),
                Kind::Downsample { .. } => (height, width) = (height.div_ceil(2), width.div_ceil(2)),
                Kind::Upsample { .. } => {
                    (height, width) = *skips.last().expect("the way up ends with the first skip")
                }
                _ => {}
            }
            height as u64 * width as u64
        })
    }

    /// Of each step: multiply-accumulates of its branch, and of what stays when its unit is removed.
    fn macs_per_step(&self, sample_size: (usize, usize)) -> Vec<(u64, u64)> {
        let mut per_step = Vec::with_capacity(self.specs.len());
        let pixels = self.pixels_per_step(sample_size);
        for ((spec, tensors), pixels) in self.specs.iter().zip(&self.steps).zip(pixels) {
            let positions = |name: &str| match name {
                _ if name.contains("time_emb_proj") => 1,
                _ if name.contains("attn2.to_k") || name.contains("attn2.to_v") => TEXT_TOKENS,
                _ => pixels,
            };
            let weights = |shortcut: bool| -> u64 {
                let of_part = tensors.iter().filter(|entry| is_shortcut(entry) == shortcut);
                of_part.map(|entry| weight_macs(entry) * positions(&entry.name)).sum()
            };
            let products = match spec.kind {
                // Queries by keys, then weights by values.
                Kind::SelfAttention { channels, .. } => 2 * pixels * pixels * channels as u64,
                Kind::CrossAttention { channels, .. } => 2 * pixels * TEXT_TOKENS * channels as u64,
                _ => 0,
            };
            per_step.push(match spec.kind {
                Kind::Resnet { .. }
                | Kind::Enter { .. }
                | Kind::SelfAttention { .. }
                | Kind::CrossAttention { .. }
                | Kind::FeedForward { .. }
                | Kind::Exit { .. } => (weights(false) + products, weights(true)),
                _ => (0, weights(false) + weights(true)),
            });
        }
        per_step
    }
}

/// Multiply-accumulates of a linear layer or convolution per output position; biases and norms are not counted.
fn weight_macs(entry: &TensorEntry) -> u64 {
    if entry.shape.len() > 1 { entry.parameters() } else { 0 }
}

fn is_shortcut(entry: &TensorEntry) -> bool {
    entry.name.contains(SHORTCUT)
}
