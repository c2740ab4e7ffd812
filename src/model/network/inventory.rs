//! What is known of a U-Net from its configuration alone: names and shapes of its tensors, its units, its cost.

use std::collections::BTreeSet;
use std::ops::Range;

use candle_core::Result;
use candle_nn::VarBuilder;

use super::granularity::Granularity;
use super::spec::{ENTER, Kind, Spec, within};
use super::step::Step;
use super::tail::Tail;
use super::unit::{LinearMap, Unit, UnitKind};
use crate::base::UnitId;
use crate::model::files::TensorEntry;
use crate::model::files::ledger::Ledger;

/// Number of text tokens that attention reads: the length of CLIP's context.
const TEXT_TOKENS: u64 = 77;

/// A learned shortcut belongs to its step but not to its unit.
const SHORTCUT: &str = "conv_shortcut";

/// The inventory of a U-Net, derived from its configuration.
#[derive(Clone, Debug)]
pub struct Inventory {
    specs: Vec<Spec>,
    /// Height and width of the latents for which the cost of units is computed.
    sample_size: (usize, usize),
    /// Tensors of the time and size embeddings.
    embedding: Vec<TensorEntry>,
    /// Tensors of each step.
    steps: Vec<Vec<TensorEntry>>,
    /// All removable units.
    removable: Vec<Unit>,
    granularity: Granularity,
    /// The removable units of this granularity.
    units: Vec<Unit>,
}

impl Inventory {
    /// The inventory of a network with the steps `specs`. `embed` builds the layers outside the list.
    pub(in crate::model) fn new<E>(
        specs: Vec<Spec>,
        sample_size: (usize, usize),
        embed: impl FnOnce(VarBuilder<'static>) -> Result<E>,
    ) -> Result<Self> {
        let ledger = Ledger::default();
        let vb = ledger.builder();
        embed(vb.clone())?;
        let embedding = ledger.take();
        let mut steps = Vec::with_capacity(specs.len());
        for spec in &specs {
            Step::new(spec, &vb)?;
            steps.push(ledger.take());
        }
        let mut inventory = Self {
            specs,
            sample_size,
            embedding,
            steps,
            removable: Vec::new(),
            granularity: Granularity::default(),
            units: Vec::new(),
        };
        inventory.removable = inventory.find_removable();
        Ok(inventory.at(Granularity::default()))
    }

    /// The same inventory with the units of another granularity.
    pub fn at(self, granularity: Granularity) -> Self {
        let allowed = |unit: &&Unit| {
            let parts: Vec<UnitKind> = self.parts(unit.steps.clone()).map(|(_, kind)| kind).collect();
            granularity.allows(unit.kind, &parts)
        };
        let mut units: Vec<Unit> = self.removable.iter().filter(allowed).cloned().collect();
        let ids: BTreeSet<UnitId> = units.iter().map(|unit| unit.id.clone()).collect();
        for unit in &mut units {
            unit.parent.take_if(|parent| !ids.contains(parent));
        }
        Self { granularity, units, ..self }
    }

    pub(in crate::model) fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// The granularity of the units; by default ResNets and transformer blocks.
    pub fn granularity(&self) -> &Granularity {
        &self.granularity
    }

    /// The units in walk order, each composite before its contents. A Transformer2D with one block is one unit, because
    /// its only block cannot be removed without the shell; the same holds for a block with one part.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// All removable units of every granularity, in the order of [`Inventory::units`].
    pub fn removable(&self) -> &[Unit] {
        &self.removable
    }

    /// Every tensor, in the order in which the steps use them.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.embedding.iter().chain(self.steps.iter().flatten())
    }

    /// The tensors that are removed with `unit`.
    pub fn tensors_of(&self, unit: &Unit) -> impl Iterator<Item = &TensorEntry> {
        self.branch(unit.steps.clone())
    }

    /// The tensors of some steps.
    pub fn tensors_in(&self, steps: Range<usize>) -> impl Iterator<Item = &TensorEntry> {
        self.steps[steps].iter().flatten()
    }

    /// The paths of the steps in walk order; no two are equal.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.specs.iter().map(|spec| spec.path.as_str())
    }

    /// The linear layer that a step ends with, if it ends with one.
    pub fn tail(&self, step: usize) -> Option<Tail> {
        self.specs.get(step).and_then(Tail::of)
    }

    /// The channels before and after a unit.
    pub fn widths(&self, unit: &Unit) -> (usize, usize) {
        match self.specs[unit.steps.start].kind {
            Kind::Resnet { inputs, outputs, .. } => (inputs, outputs),
            kind => {
                let width = channels(kind).expect("BUG: no unit begins with such a step");
                (width, width)
            }
        }
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

    /// The largest number of values that a walk keeps at once for one sample with latents of this size: the features,
    /// the intermediate results of the layer or shell, and the skips.
    pub fn state_elements(&self, height: usize, width: usize) -> u64 {
        let (mut channels, mut most, mut skips) = (0, 0, Vec::new());
        for (spec, pixels) in self.specs.iter().zip(self.pixels_per_step((height, width))) {
            match spec.kind {
                Kind::ConvIn { outputs, .. } => channels = outputs as u64,
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
        self.tensors_in(steps).filter(|entry| !is_shortcut(entry))
    }

    /// All removable units. The only child of a composite is not listed, because it cannot be removed without the
    /// composite.
    fn find_removable(&self) -> Vec<Unit> {
        let macs = self.macs_per_step(self.sample_size);
        let unit = |path: &str, kind, steps: Range<usize>, parent: Option<&UnitId>| Unit {
            id: UnitId::from(path),
            kind,
            parameters: self.branch(steps.clone()).map(TensorEntry::parameters).sum(),
            macs: macs[steps.clone()].iter().map(|macs| macs.0).sum(),
            has_shortcut: self.tensors_in(steps.clone()).any(is_shortcut),
            map: self.map_of(steps.start),
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
                    let blocks = self.blocks(start + 1, path);
                    let inside = self.specs[start..].iter().take_while(|spec| spec.path != path).count();
                    let transformer = unit(path, UnitKind::Transformer, start..start + inside + 1, None);
                    let several = blocks.len() > 1;
                    let mut inside = Vec::new();
                    for steps in blocks {
                        let path = &self.specs[steps.end - 1].path;
                        let block = unit(path, UnitKind::Block, steps.clone(), Some(&transformer.id));
                        let parent = if several { &block.id } else { &transformer.id };
                        let splits = self.parts(steps.clone()).count() > 1;
                        let parts = self.parts(steps.clone()).filter(|_| splits);
                        let parts = parts.map(|(step, kind)| {
                            unit(&self.specs[step].path, kind, step..step + 1, Some(parent))
                        });
                        let parts: Vec<_> = parts.collect();
                        inside.extend(several.then_some(block));
                        inside.extend(parts);
                    }
                    units.push(transformer);
                    units.extend(inside);
                }
                _ => {}
            }
        }
        units
    }

    /// The steps of each block, including its end step, starting from the first step inside the Transformer2D at
    /// `path`.
    fn blocks(&self, first: usize, path: &str) -> Vec<Range<usize>> {
        let inside = self.specs[first..].iter().take_while(|spec| spec.path != path);
        let ends = inside.enumerate().filter(|(_, spec)| spec.kind == Kind::Block);
        // A linear map in place of a removed block belongs to none.
        let start = |end: usize| {
            let inside = |spec: &&Spec| within(&spec.path, &self.specs[end].path);
            end - self.specs[..end].iter().rev().take_while(inside).count()
        };
        ends.map(|(step, _)| start(first + step)..first + step + 1).collect()
    }

    /// The linear map in place of the unit that begins with this step: the pixels or tokens are those of its width.
    fn map_of(&self, step: usize) -> Option<LinearMap> {
        let channels = match self.specs[step].kind {
            Kind::Resnet { inputs, outputs, .. } if inputs != outputs => return None,
            kind => channels(kind)? as u64,
        };
        let pixels = self.pixels_per_step(self.sample_size).nth(step).unwrap_or(0);
        Some(LinearMap { parameters: channels * (channels + 1), macs: channels * channels * pixels })
    }

    /// Parts of transformer blocks among these steps.
    fn parts(&self, steps: Range<usize>) -> impl Iterator<Item = (usize, UnitKind)> {
        steps.filter_map(|step| {
            let kind = match self.specs[step].kind {
                Kind::SelfAttention { .. } => UnitKind::Attn1,
                Kind::CrossAttention { .. } => UnitKind::Attn2,
                Kind::FeedForward { .. } => UnitKind::Ff,
                _ => return None,
            };
            Some((step, kind))
        })
    }

    /// The resolution after each step.
    pub(super) fn pixels_per_step(
        &self,
        (mut height, mut width): (usize, usize),
    ) -> impl Iterator<Item = u64> {
        let mut skips = Vec::new();
        self.specs.iter().map(move |spec| {
            match spec.kind {
                Kind::PushSkip => skips.push((height, width)),
                Kind::Concatenate => drop(skips.pop()),
                Kind::Downsample { .. } => (height, width) = (height.div_ceil(2), width.div_ceil(2)),
                Kind::Upsample { .. } => {
                    (height, width) = *skips.last().expect("the up path ends with the first skip")
                }
                _ => {}
            }
            height as u64 * width as u64
        })
    }

    /// For each step: multiply-accumulates of its branch, and of what remains when its unit is removed.
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
                // Queries times keys, then weights times values.
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

/// The channels after the first step of a unit.
fn channels(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Resnet { outputs, .. } => Some(outputs),
        Kind::Enter { channels, .. }
        | Kind::SelfAttention { channels, .. }
        | Kind::CrossAttention { channels, .. }
        | Kind::FeedForward { channels }
        | Kind::Map { channels } => Some(channels),
        _ => None,
    }
}

fn is_shortcut(entry: &TensorEntry) -> bool {
    entry.name.contains(SHORTCUT)
}
