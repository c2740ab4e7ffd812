//! Handcrafted layouts: baselines for automatic selection, and shapes that other programs support.
//!
//! The kept layers come from the papers and the published configurations. Keeping the first blocks of a transformer is our
//! choice for SSD-1B and Vega, and KOALA's own finding (Lee et al. 2024, table 4).

use std::collections::BTreeSet;

use crate::base::UnitId;
use crate::base::names::{self, UnknownName};
use crate::model::network::Unit;
use crate::model::unet::{Assembly, Layers, Level, Mid, UNetConfig};
use crate::select::error::SelectError;

/// A handcrafted layout.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// What a pipeline file calls it.
    pub name: &'static str,
    /// One line for `laptop-diff list`.
    pub summary: &'static str,
    /// The publication.
    pub source: &'static str,
    /// Levels of the U-Net that it is for, and how many of them are kept, from the outermost.
    levels: (usize, usize),
    /// Kept layers (a ResNet and its transformer) of the two in each down block.
    down: &'static [usize],
    /// Kept layers of the three in each up block.
    up: &'static [usize],
    mid: Middle,
    /// Blocks kept in each transformer, unless all are.
    depths: Option<LayoutDepths>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Middle {
    Whole,
    FirstResnet,
    Nothing,
}

/// Blocks per transformer, by level from the outermost; a level without transformers has none.
#[derive(Clone, Copy, Debug)]
struct LayoutDepths {
    down: &'static [&'static [usize]],
    mid: usize,
    up: &'static [&'static [usize]],
}

const BK_SDM: &str = "Kim et al. 2024 (BK-SDM), arXiv 2305.15798";
const SEGMIND: &str = "Gupta et al. 2024 (SSD-1B, Segmind-Vega), arXiv 2401.02677";
const KOALA: &str = "Lee et al. 2024 (KOALA), arXiv 2312.04005";

/// Every layout.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        name: "bk-sdm-base",
        summary: "SD 1.x: one pair of ResNet and transformer fewer in each block",
        source: BK_SDM,
        levels: (4, 4),
        down: &[0],
        up: &[0, 2],
        mid: Middle::Whole,
        depths: None,
    },
    Layout {
        name: "bk-sdm-small",
        summary: "SD 1.x: bk-sdm-base without the middle block",
        source: BK_SDM,
        levels: (4, 4),
        down: &[0],
        up: &[0, 2],
        mid: Middle::Nothing,
        depths: None,
    },
    Layout {
        name: "bk-sdm-tiny",
        summary: "SD 1.x: bk-sdm-small without the innermost level",
        source: BK_SDM,
        levels: (4, 3),
        down: &[0],
        up: &[0, 2],
        mid: Middle::Nothing,
        depths: None,
    },
    Layout {
        name: "ssd-1b",
        summary: "SDXL: fewer transformer blocks, none in the middle block",
        source: SEGMIND,
        levels: (3, 3),
        down: &[0, 1],
        up: &[0, 1, 2],
        mid: Middle::FirstResnet,
        depths: Some(LayoutDepths {
            down: &[&[], &[2, 2], &[4, 4]],
            mid: 0,
            up: &[&[], &[2, 1, 1], &[4, 4, 10]],
        }),
    },
    Layout {
        name: "vega",
        summary: "SDXL: one or two transformer blocks each, none in the middle block",
        source: SEGMIND,
        levels: (3, 3),
        down: &[0, 1],
        up: &[0, 1, 2],
        mid: Middle::FirstResnet,
        depths: Some(LayoutDepths {
            down: &[&[], &[1, 1], &[2, 2]],
            mid: 0,
            up: &[&[], &[1, 1, 1], &[2, 2, 2]],
        }),
    },
    Layout {
        name: "koala-1b",
        summary: "SDXL: one layer fewer in each block, six transformer blocks at most",
        source: KOALA,
        levels: (3, 3),
        down: &[0],
        up: &[0, 2],
        mid: Middle::Whole,
        depths: Some(LayoutDepths { down: &[&[], &[2], &[6]], mid: 6, up: &[&[], &[2, 2], &[6, 6]] }),
    },
    Layout {
        name: "koala-700m",
        summary: "SDXL: one layer fewer in each block, five transformer blocks at most, no middle block",
        source: KOALA,
        levels: (3, 3),
        down: &[0],
        up: &[0, 2],
        mid: Middle::Nothing,
        depths: Some(LayoutDepths { down: &[&[], &[2], &[5]], mid: 0, up: &[&[], &[2, 2], &[5, 5]] }),
    },
];

impl Layout {
    /// The layout of this name.
    pub fn find(name: &str) -> Result<&'static Self, UnknownName> {
        names::find("layout", LAYOUTS, |layout| layout.name, name)
    }

    /// Whether layers are dropped together with their skip connections, which removing units cannot do.
    pub fn drops_layers(&self) -> bool {
        self.levels.0 != self.levels.1 || self.down.len() < 2
    }

    /// The layout's U-Net, assembled from the modules of an unpruned one.
    pub fn assemble(&self, teacher: &UNetConfig) -> Result<Assembly, SelectError> {
        let refuse = |reason: String| SelectError::LayoutMisfit { layout: self.name, reason };
        if let Some(unit) = teacher.removed_units.first() {
            return Err(refuse(format!("`{unit}` was removed from it before")));
        }
        if teacher.levels.len() != self.levels.0 || teacher.levels.iter().any(|level| level.layers != 2) {
            let layers: Vec<_> = teacher.levels.iter().map(|level| level.layers).collect();
            return Err(refuse(format!("it has levels of {layers:?} layers, not {} of 2", self.levels.0)));
        }
        let pruned =
            teacher.prune(&self.removed_blocks(teacher)?).map_err(|error| refuse(error.to_string()))?;
        let layers = Layers { down: self.down.to_vec(), up: self.up.to_vec() };
        let pick = |depths: &Vec<Option<usize>>, layers: &[usize]| {
            layers.iter().map(|&layer| depths[layer]).collect::<Option<Vec<_>>>()
        };
        let levels = teacher.levels.iter().zip(pruned.kept_depths()).take(self.levels.1);
        let levels: Vec<Level> = levels
            .map(|(level, (down, up))| Level {
                layers: self.down.len(),
                down_depths: pick(&down, self.down),
                up_depths: pick(&up, self.up),
                ..level.clone()
            })
            .collect();
        let mid = match (self.mid, pruned.kept_mid_depth()) {
            (Middle::Whole, Some(depth)) => Mid::CrossAttention { depth },
            (Middle::Whole, None) => return Err(refuse("its middle block has no transformer".to_owned())),
            (Middle::FirstResnet, _) => Mid::Resnet,
            (Middle::Nothing, _) => Mid::None,
        };
        let target = UNetConfig { levels, mid, removed_units: BTreeSet::new(), ..pruned.clone() };
        Assembly::new(&pruned, target, Some(&layers))
            .map_err(|unit| refuse(format!("`{unit}` has no place in the layout")))
    }

    /// The teacher's units that the layout lacks; a Transformer2D that is removed whole is listed without its blocks.
    pub fn removed(&self, teacher: &UNetConfig) -> Result<BTreeSet<UnitId>, SelectError> {
        let inventory = teacher.inventory();
        let mut removed = self.removed_blocks(teacher)?;
        let last = teacher.levels.len() - 1;
        let gone = |unit: &Unit| {
            let mut words = unit.id.as_str().split('.');
            let (stage, index) = (words.next(), words.next().and_then(|word| word.parse::<usize>().ok()));
            let layer = words.nth(1).and_then(|word| word.parse::<usize>().ok());
            match (stage, index, layer) {
                (Some("down_blocks"), Some(level), Some(layer)) => {
                    level >= self.levels.1 || !self.down.contains(&layer)
                }
                (Some("up_blocks"), Some(index), Some(layer)) => {
                    last - index >= self.levels.1 || !self.up.contains(&layer)
                }
                _ => false,
            }
        };
        removed.extend(inventory.units().iter().filter(|unit| gone(unit)).map(|unit| unit.id.clone()));
        let pruned = teacher
            .prune(&removed)
            .map_err(|error| SelectError::LayoutMisfit { layout: self.name, reason: error.to_string() })?;
        Ok(pruned.removed_units)
    }

    /// The transformer blocks and the units of the middle block that are removed.
    fn removed_blocks(&self, teacher: &UNetConfig) -> Result<BTreeSet<UnitId>, SelectError> {
        let mut removed: BTreeSet<UnitId> = match self.mid {
            Middle::Whole => BTreeSet::new(),
            Middle::FirstResnet => {
                ["resnets.1", "attentions.0"].map(|unit| format!("mid_block.{unit}").into()).into()
            }
            Middle::Nothing => ["resnets.0", "attentions.0", "resnets.1"]
                .map(|unit| format!("mid_block.{unit}").into())
                .into(),
        };
        let Some(depths) = self.depths else { return Ok(removed) };
        let mut keep = |path: String, found: Option<usize>, kept: usize| match found {
            Some(found) if found >= kept => {
                removed
                    .extend((kept..found).map(|block| format!("{path}.transformer_blocks.{block}").into()));
                Ok(())
            }
            found => Err(SelectError::LayoutMisfit {
                layout: self.name,
                reason: format!(
                    "`{path}` should have at least {kept} blocks, but has {}",
                    found.unwrap_or(0)
                ),
            }),
        };
        let last = teacher.levels.len() - 1;
        for (level, (down, up)) in teacher.kept_depths().iter().enumerate() {
            for (&kept, &layer) in depths.down[level].iter().zip(self.down) {
                keep(format!("down_blocks.{level}.attentions.{layer}"), down[layer], kept)?;
            }
            for (&kept, &layer) in depths.up[level].iter().zip(self.up) {
                keep(format!("up_blocks.{}.attentions.{layer}", last - level), up[layer], kept)?;
            }
        }
        if self.mid == Middle::Whole {
            keep("mid_block.attentions.0".to_owned(), teacher.kept_mid_depth(), depths.mid)?;
        }
        Ok(removed)
    }
}
