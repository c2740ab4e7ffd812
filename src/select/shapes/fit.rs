//! Selections that a program loads as they are: its rules become constraints of the knapsack, so that an export for it
//! needs no padding.
//!
//! Only our own loader can omit a single ResNet of the down and up blocks, so these are kept. All other rules of a loader
//! are written as lists of choices, one of each list to be taken; [`Front`](crate::select::Front) then solves it exactly.

use std::collections::BTreeMap;

use super::layout::Layout;
use super::loader::{ENCODERS, encoder};
use crate::base::names::{self, UnknownName};
use crate::model::unet::{Mid, UNetConfig};
use crate::select::error::SelectError;
use crate::select::exact::{Choice, both, either};
use crate::select::problem::SelectionProblem;

/// A program, or a shape, that a selection must fit.
pub struct Fit {
    /// What a pipeline file calls it.
    pub name: &'static str,
    /// One line for `laptop-diff list`.
    pub summary: &'static str,
    choices: fn(&ScoredUNet<'_>) -> Result<Vec<Vec<Choice>>, SelectError>,
}

/// Every fit.
pub const FITS: &[Fit] = &[
    Fit {
        name: "diffusers",
        summary: "stock diffusers: transformer depths from config.json, and whole blocks without attention",
        choices: diffusers,
    },
    Fit {
        name: "comfyui",
        summary: "ComfyUI: any transformers of SD 1.x and 2.x; for SDXL, the encoder depths that it supports",
        choices: comfyui,
    },
    Fit { name: "sdcpp", summary: "stable-diffusion.cpp: the depths of SSD-1B or Vega", choices: sdcpp },
    Fit {
        name: "ssd-1b",
        summary: "the depths of SSD-1B, which every program loads",
        choices: |shape| exactly(shape, "ssd-1b"),
    },
    Fit {
        name: "vega",
        summary: "the depths of Segmind-Vega, which every program loads",
        choices: |shape| exactly(shape, "vega"),
    },
];

impl Fit {
    /// The fit of this name.
    pub fn find(name: &str) -> Result<&'static Self, UnknownName> {
        names::find("fit", FITS, |fit| fit.name, name)
    }

    /// Whether every selection that fits removes the same number of parameters, so that no ratio is needed.
    pub fn is_one_shape(&self) -> bool {
        Layout::find(self.name).is_ok()
    }

    /// The choices that the loader allows in the problem of an unpruned `unet`.
    pub(in crate::select) fn choices(
        &self,
        unet: &UNetConfig,
        problem: &SelectionProblem,
    ) -> Result<Vec<Vec<Choice>>, SelectError> {
        if let Some(unit) = unet.removed_units.first() {
            return Err(SelectError::FitsPruned { unit: unit.clone() });
        }
        let places = problem.units.iter().enumerate().map(|(place, unit)| (unit.as_str(), place));
        (self.choices)(&ScoredUNet { unet, problem, places: places.collect() })
    }
}

/// A U-Net with its selection problem; units are found by their paths.
struct ScoredUNet<'a> {
    unet: &'a UNetConfig,
    problem: &'a SelectionProblem,
    places: BTreeMap<&'a str, usize>,
}

/// The paths of the transformers of one block of the U-Net, between two changes of resolution.
type Attending = Vec<String>;

impl ScoredUNet<'_> {
    fn unit(&self, path: &str) -> usize {
        *self
            .places
            .get(path)
            .unwrap_or_else(|| panic!("BUG: `{path}` is a unit of the U-Net, but was not scored"))
    }

    fn any(&self, path: &str) -> Vec<Choice> {
        self.problem.choices(self.unit(path))
    }

    /// All of it is removed.
    fn whole(&self, path: &str) -> Vec<Choice> {
        self.problem.whole(self.unit(path))
    }

    /// Exactly `kept` blocks are kept.
    fn keeping(&self, path: &str, kept: usize) -> Vec<Choice> {
        self.problem.keeping(self.unit(path), kept)
    }

    /// At least one block is kept.
    fn some(&self, path: &str) -> Vec<Choice> {
        self.problem.kept(self.unit(path))
    }

    /// The number of blocks in a transformer.
    fn depth(&self, path: &str) -> usize {
        self.problem.tree.parts(self.unit(path)).len().max(1)
    }

    /// The blocks with transformers, `down` or `up`, from the outermost level.
    fn stages(&self, way: &str) -> Vec<Attending> {
        let last = self.unet.levels.len() - 1;
        let levels = self.unet.levels.iter().enumerate();
        let stages = levels.map(|(level, found)| match way {
            "down" => (level, &found.down_depths),
            _ => (last - level, &found.up_depths),
        });
        let paths = |(stage, depths): (usize, &Option<Vec<usize>>)| -> Attending {
            let layers = 0..depths.as_ref().map_or(0, Vec::len);
            layers.map(|layer| format!("{way}_blocks.{stage}.attentions.{layer}")).collect()
        };
        stages.map(paths).filter(|stage: &Attending| !stage.is_empty()).collect()
    }

    /// The transformer of the middle block, if it has one.
    fn attending_middle(&self) -> Option<&'static str> {
        matches!(self.unet.mid, Mid::CrossAttention { .. }).then_some("mid_block.attentions.0")
    }

    /// The middle block without its transformer: one ResNet, as in `UNetMidBlock2D`, or empty.
    fn middle_without_transformer(&self) -> Vec<Choice> {
        let (first, second) = (self.whole("mid_block.resnets.0"), self.whole("mid_block.resnets.1"));
        let resnets = either(both(&first, &second), either(first, second));
        both(&self.whole("mid_block.attentions.0"), &resnets)
    }
}

/// One choice of each list, combined.
fn all(lists: impl IntoIterator<Item = Vec<Choice>>) -> Vec<Choice> {
    lists.into_iter().fold(vec![Choice::nothing()], |so_far, list| both(&so_far, &list))
}

/// Depths are configured per transformer, and a block without any attention has another type. A single transformer of depth
/// 0 would keep its shell. The depth of the middle block is that of the first transformer of the innermost down block.
fn diffusers(shape: &ScoredUNet<'_>) -> Result<Vec<Vec<Choice>>, SelectError> {
    let attending = |stage: &Attending| all(stage.iter().map(|path| shape.some(path)));
    let plain = |stage: &Attending| all(stage.iter().map(|path| shape.whole(path)));
    let free = |stage: &Attending| either(attending(stage), plain(stage));
    let mut lists: Vec<_> = shape.stages("up").iter().map(free).collect();
    let mut down = shape.stages("down");
    let innermost = match shape.unet.innermost().down_depths {
        Some(_) => down.pop(),
        None => None,
    };
    lists.extend(down.iter().map(free));
    let Some(middle) = shape.attending_middle() else {
        lists.extend(innermost.iter().map(free));
        return Ok(lists);
    };
    let (kept, gone) = (shape.some(middle), shape.middle_without_transformer());
    lists.push(match &innermost {
        None => either(kept, gone),
        Some(stage) => {
            let (first, rest) = stage.split_first().expect("a stage without transformers is not among them");
            let rest = all(rest.iter().map(|path| shape.some(path)));
            let depths = 1..=shape.depth(first);
            let same = depths
                .map(|depth| both(&shape.keeping(first, depth), &shape.keeping(middle, depth)))
                .fold(Vec::new(), either);
            let attending = either(both(&same, &rest), both(&attending(stage), &gone));
            either(attending, both(&plain(stage), &either(kept, gone)))
        }
    });
    Ok(lists)
}

/// ComfyUI reads the decoder and the middle block from the file. The same holds for the encoder of SD 1.x and 2.x, but it must
/// keep one transformer, from which ComfyUI reads the width of the text. SDXL's encoder is looked up in a list.
fn comfyui(shape: &ScoredUNet<'_>) -> Result<Vec<Vec<Choice>>, SelectError> {
    let mut lists: Vec<_> = shape.stages("up").concat().iter().map(|path| shape.any(path)).collect();
    if let Some(middle) = shape.attending_middle() {
        lists.push(either(shape.some(middle), shape.middle_without_transformer()));
    }
    let encoder_paths = shape.stages("down").concat();
    if shape.unet.text_time.is_none() {
        let (mut none, mut some) = (vec![Choice::nothing()], Vec::new());
        for path in &encoder_paths {
            some = either(both(&some, &shape.any(path)), both(&none, &shape.some(path)));
            none = both(&none, &shape.whole(path));
        }
        lists.push(some);
        return Ok(lists);
    }
    let depths = encoder(shape.unet);
    let known = ENCODERS.iter().filter(|known| known.len() == depths.len());
    let known = known.map(|known| known.to_vec()).chain([depths.clone()]);
    let transformers: Vec<usize> = (0..depths.len()).filter(|&layer| depths[layer] > 0).collect();
    let reachable =
        known.filter(|known| (0..depths.len()).all(|layer| (known[layer] > 0) == (depths[layer] > 0)));
    let encoders = reachable.map(|known| {
        let kept = transformers.iter().map(|&layer| known[layer]);
        all(encoder_paths.iter().zip(kept).map(|(path, kept)| shape.keeping(path, kept)))
    });
    lists.push(encoders.fold(Vec::new(), either));
    Ok(lists)
}

/// One of the shapes in its source code.
fn sdcpp(shape: &ScoredUNet<'_>) -> Result<Vec<Vec<Choice>>, SelectError> {
    let known = ["ssd-1b", "vega"].into_iter().filter_map(|name| exactly(shape, name).ok()).flatten();
    Ok(vec![known.fold(vec![Choice::nothing()], either)])
}

/// The depths of a layout; the scores decide which blocks are kept.
fn exactly(shape: &ScoredUNet<'_>, name: &str) -> Result<Vec<Vec<Choice>>, SelectError> {
    let layout = Layout::find(name)?;
    let target = layout.assemble(shape.unet)?;
    let last = shape.unet.levels.len() - 1;
    let mut lists = Vec::new();
    for (level, (down, up)) in target.config().kept_depths().into_iter().enumerate() {
        for (way, stage, depths) in [("down", level, down), ("up", last - level, up)] {
            for (layer, kept) in
                depths.into_iter().enumerate().filter_map(|(layer, kept)| Some((layer, kept?)))
            {
                lists.push(shape.keeping(&format!("{way}_blocks.{stage}.attentions.{layer}"), kept));
            }
        }
    }
    if target.config().mid == Mid::Resnet {
        let resnets = either(shape.whole("mid_block.resnets.0"), shape.whole("mid_block.resnets.1"));
        lists.push(both(&shape.whole("mid_block.attentions.0"), &resnets));
    }
    Ok(vec![all(lists)])
}
