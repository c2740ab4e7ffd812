//! A U-Net assembled from the modules of another: renumbered, with fewer layers, or with zeros where a loader requires
//! a module that was removed.
//!
//! The zeros do not change the output: the last layer of a branch has a weight and a bias, and if both are zero the
//! branch adds zero. A padded ResNet keeps its learned shortcut.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Level, UNetConfig};
use crate::base::UnitId;
use crate::model::files::TensorEntry;
use crate::model::network::spec::{PARTS, block_id, norm_of, within};

/// Which layers of the source are used, in order; all of them by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Layers of the down path, per level.
    pub down: Vec<usize>,
    /// Layers of the up path, per level.
    pub up: Vec<usize>,
}

/// A U-Net and the origin of its tensors.
#[derive(Clone, Debug)]
pub struct Assembly {
    config: UNetConfig,
    /// The source module of each of its modules.
    modules: BTreeMap<String, String>,
    /// Units that are not in the source.
    padded: BTreeSet<UnitId>,
}

/// Number of blocks of each transformer in one path of a level; `None` for a removed transformer.
pub type KeptDepths = Vec<Option<usize>>;

/// The origin of a tensor of an [`Assembly`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The source's tensor of this name.
    Kept(String),
    /// Not in the source: filled with zeros.
    Zeros,
}

impl Assembly {
    /// Places the modules of `source` into `target`, layer by layer and block by block; additional modules of `target`
    /// are filled with zeros. The error is a unit of `source` that has no place in `target`.
    pub fn new(source: &UNetConfig, target: UNetConfig, layers: Option<&Layers>) -> Result<Self, UnitId> {
        let mut assembly = Self { config: target, modules: BTreeMap::new(), padded: BTreeSet::new() };
        let target = assembly.config.clone();
        for module in ["time_embedding", "add_embedding", "conv_in", "conv_norm_out", "conv_out"] {
            assembly.same(module, module);
        }
        let ups = |config: &UNetConfig, level: usize| config.levels.len() - 1 - level;
        for (level, (here, there)) in target.levels.iter().zip(&source.levels).enumerate() {
            let down = (format!("down_blocks.{level}"), format!("down_blocks.{level}"));
            let up =
                (format!("up_blocks.{}", ups(&target, level)), format!("up_blocks.{}", ups(source, level)));
            let pick =
                |picked: Option<&Vec<usize>>, layer: usize| picked.map_or(layer, |picked| picked[layer]);
            for layer in 0..here.layers {
                let from = pick(layers.map(|layers| &layers.down), layer);
                let depths = (depth(&here.down_depths, layer), depth(&there.down_depths, from));
                assembly.layer(source, (&down.0, layer), (&down.1, from), depths)?;
            }
            for layer in 0..=here.layers {
                let from = pick(layers.map(|layers| &layers.up), layer);
                let depths = (depth(&here.up_depths, layer), depth(&there.up_depths, from));
                assembly.layer(source, (&up.0, layer), (&up.1, from), depths)?;
            }
            assembly.same(&format!("{}.downsamplers.0", down.0), &format!("{}.downsamplers.0", down.1));
            assembly.same(&format!("{}.upsamplers.0", up.0), &format!("{}.upsamplers.0", up.1));
        }
        assembly.middle(source)?;
        Ok(assembly)
    }

    /// Its configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Its tensors and their origins, in walk order.
    pub fn tensors(&self) -> Vec<(TensorEntry, Origin)> {
        let inventory = self.config.inventory();
        inventory.tensors().map(|entry| (entry.clone(), self.origin(&entry.name))).collect()
    }

    /// Zero-filled units that exist only because a loader requires them.
    pub fn padded(&self) -> &BTreeSet<UnitId> {
        &self.padded
    }

    /// Whether a tensor exists only because a loader requires it.
    pub fn pads(&self, tensor: &str) -> bool {
        self.origin(tensor) == Origin::Zeros
    }

    /// Modules whose path differs from the source's; the source's path comes first.
    pub fn renamed(&self) -> impl Iterator<Item = (&str, &str)> {
        let modules = self.modules.iter().filter(|(here, there)| here != there);
        modules.map(|(here, there)| (there.as_str(), here.as_str()))
    }

    fn origin(&self, name: &str) -> Origin {
        let pads = |unit: &UnitId| {
            let norm = norm_of(unit.as_str()).is_some_and(|norm| within(name, &norm));
            norm || within(name, unit.as_str())
        };
        let padded = self.padded.iter().any(pads);
        if padded && !name.contains("conv_shortcut") {
            return Origin::Zeros;
        }
        let module =
            self.modules.iter().filter(|(here, _)| within(name, here)).max_by_key(|(here, _)| here.len());
        let (here, there) = module.expect("BUG: every module of the target has a source");
        Origin::Kept(format!("{there}{}", &name[here.len()..]))
    }

    fn same(&mut self, here: &str, there: &str) {
        self.modules.insert(here.to_owned(), there.to_owned());
    }

    /// A ResNet and the transformer after it.
    fn layer(
        &mut self,
        source: &UNetConfig,
        here: (&str, usize),
        there: (&str, usize),
        depths: (Option<usize>, Option<usize>),
    ) -> Result<(), UnitId> {
        let path = |kind: &str, (stage, layer): (&str, usize)| format!("{stage}.{kind}.{layer}");
        self.resnet(source, &path("resnets", here), &path("resnets", there));
        self.transformer(source, &path("attentions", here), &path("attentions", there), depths)
    }

    fn resnet(&mut self, source: &UNetConfig, here: &str, there: &str) {
        self.same(here, there);
        if source.removed_units.contains(there) && !self.config.removed_units.contains(here) {
            self.padded.insert(UnitId::from(here));
        }
    }

    fn transformer(
        &mut self,
        source: &UNetConfig,
        here: &str,
        there: &str,
        (depth, source_depth): (Option<usize>, Option<usize>),
    ) -> Result<(), UnitId> {
        let source_depth = source_depth.filter(|_| !source.removed_units.contains(there));
        let mut kept = source_depth.map(|depth| blocks(source, there, depth));
        let Some(depth) = depth.filter(|_| !self.config.removed_units.contains(here)) else {
            if source.linear_units.contains(there) {
                self.same(here, there);
            }
            return if kept.is_some() { Err(UnitId::from(there)) } else { Ok(()) };
        };
        match kept {
            Some(_) => self.same(here, there),
            None => drop(self.padded.insert(UnitId::from(here))),
        }
        let kept = kept.get_or_insert_default();
        let places = blocks(&self.config, here, depth);
        if kept.len() > places.len() {
            return Err(kept[places.len()].clone());
        }
        for (index, place) in places.into_iter().enumerate() {
            match kept.get(index) {
                Some(block) => self.block(source, place.as_str(), block.as_str())?,
                None => drop(self.padded.insert(place)),
            }
        }
        Ok(())
    }

    fn block(&mut self, source: &UNetConfig, here: &str, there: &str) -> Result<(), UnitId> {
        self.same(here, there);
        for (part, _) in PARTS {
            let [here, there] = [here, there].map(|block| UnitId::from(format!("{block}.{part}")));
            match (self.config.removed_units.contains(&here), source.removed_units.contains(&there)) {
                (true, false) => return Err(there),
                (false, true) => drop(self.padded.insert(here)),
                _ => {}
            }
        }
        Ok(())
    }

    fn middle(&mut self, source: &UNetConfig) -> Result<(), UnitId> {
        let resnets = source.mid.resnets();
        let ids = (0..resnets).map(|index| format!("mid_block.resnets.{index}"));
        let mut kept: Vec<String> = ids.filter(|id| !source.removed_units.contains(id.as_str())).collect();
        let places = self.config.mid.resnets();
        if kept.len() > places {
            return Err(UnitId::from(kept[places].as_str()));
        }
        // A ResNet before and one after a transformer keep their sides; without a transformer only their order counts.
        let both_sides = places == 2 && resnets == 2;
        for index in 0..places {
            let here = format!("mid_block.resnets.{index}");
            let there = match both_sides {
                true => Some(here.clone()).filter(|id| kept.contains(id)),
                false => (!kept.is_empty()).then(|| kept.remove(0)),
            };
            match there {
                Some(there) => self.same(&here, &there),
                None if source.linear_units.contains(here.as_str()) => self.same(&here, &here),
                None if self.config.removed_units.contains(here.as_str()) => {}
                None => drop(self.padded.insert(UnitId::from(here))),
            }
        }
        let (here, there) = (self.config.mid.depth(), source.mid.depth());
        self.transformer(source, "mid_block.attentions.0", "mid_block.attentions.0", (here, there))
    }
}

impl UNetConfig {
    /// The remaining depths of each level's transformers, on the down path and on the up path.
    pub fn kept_depths(&self) -> Vec<(KeptDepths, KeptDepths)> {
        let last = self.levels.len() - 1;
        let ways = |(index, level): (usize, &Level)| {
            let of = |stage: String, depths: &Option<Vec<usize>>, layers: usize| {
                let kept = |layer: usize| {
                    self.kept_depth(&format!("{stage}.attentions.{layer}"), depth(depths, layer))
                };
                (0..layers).map(kept).collect()
            };
            (
                of(format!("down_blocks.{index}"), &level.down_depths, level.layers),
                of(format!("up_blocks.{}", last - index), &level.up_depths, level.layers + 1),
            )
        };
        self.levels.iter().enumerate().map(ways).collect()
    }

    /// Remaining blocks of the transformer in the middle; `None` without one.
    pub fn kept_mid_depth(&self) -> Option<usize> {
        self.kept_depth("mid_block.attentions.0", self.mid.depth())
    }

    /// Remaining ResNets in the middle.
    pub fn kept_mid_resnets(&self) -> usize {
        (0..self.mid.resnets())
            .filter(|index| !self.removed_units.contains(format!("mid_block.resnets.{index}").as_str()))
            .count()
    }

    fn kept_depth(&self, path: &str, depth: Option<usize>) -> Option<usize> {
        depth.filter(|_| !self.removed_units.contains(path)).map(|depth| blocks(self, path, depth).len())
    }
}

fn depth(depths: &Option<Vec<usize>>, layer: usize) -> Option<usize> {
    depths.as_ref().map(|depths| depths[layer])
}

/// The remaining blocks of a transformer.
fn blocks(config: &UNetConfig, path: &str, depth: usize) -> Vec<UnitId> {
    (0..depth).map(|block| block_id(path, block)).filter(|id| !config.removed_units.contains(id)).collect()
}
