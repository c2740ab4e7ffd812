//! Export formats, one for each target program: which U-Nets it can build, and from what kind of file.
//! Checked by running diffusers 0.42, ComfyUI 0.3.64 (October 2025) and stable-diffusion.cpp of August 2026.

use std::collections::BTreeSet;

use crate::base::UnitId;
use crate::base::names::{self, UnknownName};
use crate::model::unet::{Assembly, KeptDepths, Level, Mid, UNetConfig};
use crate::prune::container::Container;
use crate::select::{ENCODERS, KnownDepths, SDCPP, encoder};

/// An export format.
pub struct Format {
    /// What the command line and a pipeline file call it.
    pub name: &'static str,
    /// One line for `laptop-diff list`.
    pub summary: &'static str,
    /// The kind of file or folder.
    pub container: Container,
    /// The U-Nets that the program can build and that may contain a pruned one; the smallest that does is used.
    targets: fn(&UNetConfig) -> Vec<UNetConfig>,
    /// Why the program does not support such a U-Net, whatever was removed from it.
    unrecognised: fn(&UNetConfig) -> Option<String>,
    /// The program that reads a single file.
    pub(super) program: Option<Program>,
}

/// A program that reads single files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// ComfyUI.
    ComfyUi,
    /// stable-diffusion.cpp.
    StableDiffusionCpp,
}

impl Program {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ComfyUi => "ComfyUI",
            Self::StableDiffusionCpp => "stable-diffusion.cpp",
        }
    }

    /// How a user of the program can say what the file does not.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::ComfyUi => "its node ModelSamplingDiscrete can set it",
            Self::StableDiffusionCpp => "its option `--prediction` can set it",
        }
    }
}

/// Every format.
pub const FORMATS: &[Format] = &[
    Format {
        name: "diffusers",
        summary: "a diffusers directory for the stock classes; missing layers are padded",
        container: Container::Directory,
        targets: |pruned| vec![diffusers(pruned)],
        unrecognised: |_| None,
        program: None,
    },
    Format {
        name: "diffusers-code",
        summary: "a diffusers directory of the true size with the original names; requires trust_remote_code",
        container: Container::Code,
        targets: |pruned| vec![pruned.clone()],
        unrecognised: |_| None,
        program: None,
    },
    Format {
        name: "comfyui",
        summary: "one file for ComfyUI, in the original layout",
        container: Container::SingleFile,
        targets: comfyui,
        unrecognised: unrecognised_by_comfyui,
        program: Some(Program::ComfyUi),
    },
    Format {
        name: "sdcpp",
        summary: "one file for stable-diffusion.cpp, padded to the depths of SD 1.x, SD 2.x, SDXL, SSD-1B or Vega",
        container: Container::SingleFile,
        targets: sdcpp,
        unrecognised: unrecognised_by_sdcpp,
        program: Some(Program::StableDiffusionCpp),
    },
];

impl Format {
    /// The format of this name.
    pub fn find(name: &str) -> Result<&'static Self, UnknownName> {
        names::find("export format", FORMATS, |format| format.name, name)
    }

    /// The smallest U-Net that the program can build and that contains `pruned`.
    pub fn assemble(&self, pruned: &UNetConfig) -> Option<Assembly> {
        let targets = (self.targets)(pruned).into_iter();
        let fitting = targets.filter_map(|target| Assembly::new(pruned, target, None).ok());
        fitting.min_by_key(|assembly| assembly.config().inventory().parameters())
    }

    /// Why the program does not support this U-Net.
    pub fn unrecognised(&self, pruned: &UNetConfig) -> Option<String> {
        (self.unrecognised)(pruned)
    }
}

/// Depths are configured per transformer, and a transformer without blocks keeps its shell; a block of the U-Net without any
/// has the type without attention. The depth of the middle block is that of the innermost down block's first transformer.
fn diffusers(pruned: &UNetConfig) -> UNetConfig {
    let depths = |kept: &[Option<usize>]| {
        kept.iter().any(Option::is_some).then(|| kept.iter().map(|depth| depth.unwrap_or(0)).collect())
    };
    let mut levels: Vec<Level> = (pruned.levels.iter().zip(pruned.kept_depths()))
        .map(|(level, (down, up))| Level {
            down_depths: depths(&down),
            up_depths: depths(&up),
            ..level.clone()
        })
        .collect();
    let mut mid = middle(pruned);
    let innermost = levels.last_mut().and_then(|level| level.down_depths.as_mut());
    if let (Mid::CrossAttention { depth }, Some(depths)) = (&mut mid, innermost) {
        let common = depths[0].max(*depth);
        (depths[0], *depth) = (common, common);
    }
    UNetConfig { levels, mid, removed_units: BTreeSet::new(), ..pruned.clone() }
}

/// The smallest middle block of those that exist: with a transformer, one ResNet, or none.
fn middle(pruned: &UNetConfig) -> Mid {
    match (pruned.kept_mid_depth(), pruned.kept_mid_resnets()) {
        (None, 0) => Mid::None,
        (None, 1) => Mid::Resnet,
        (depth, _) => Mid::CrossAttention { depth: depth.unwrap_or(0) },
    }
}

/// A transformer may be missing anywhere except between two ResNets in the middle block, where ComfyUI would drop the second
/// ResNet. ComfyUI reads all depths from the file, but looks SDXL's encoder up in a list, and reads the width of the text
/// from the encoder, which must therefore have a transformer.
fn comfyui(pruned: &UNetConfig) -> Vec<UNetConfig> {
    let found = encoder(pruned);
    let holds = |known: &[usize]| {
        known.len() == found.len() && known.iter().zip(&found).all(|(known, found)| known >= found)
    };
    let mut encoders = vec![found.clone()];
    if pruned.text_time.is_some() {
        encoders = ENCODERS.iter().filter(|known| holds(known)).map(|known| known.to_vec()).collect();
        if encoders.is_empty() {
            // ComfyUI does not support this U-Net, so its encoder before pruning is as good as any.
            encoders.push(encoder(&whole(pruned)));
        }
    } else if found.iter().all(|&depth| depth == 0) {
        let layers = pruned.levels.iter().flat_map(|level| vec![level.down_depths.is_some(); level.layers]);
        let attending: Vec<bool> = layers.collect();
        encoders = (0..attending.len())
            .filter(|&layer| attending[layer])
            .map(|padded| (0..attending.len()).map(|layer| usize::from(layer == padded)).collect())
            .collect();
    }
    encoders.iter().map(|encoder| absent_where_removed(pruned, encoder)).collect()
}

/// `pruned` with this encoder, with blocks numbered without gaps and without the removed transformers.
fn absent_where_removed(pruned: &UNetConfig, encoder: &[usize]) -> UNetConfig {
    let mut removed_units = BTreeSet::new();
    let mut encoder = encoder.iter();
    let last = pruned.levels.len() - 1;
    let mut way = |stage: String, kept: KeptDepths| {
        let gone = kept.iter().enumerate().filter(|(_, depth)| depth.is_none());
        let gone: Vec<_> =
            gone.map(|(layer, _)| UnitId::from(format!("{stage}.attentions.{layer}"))).collect();
        if gone.len() == kept.len() {
            return None;
        }
        removed_units.extend(gone);
        // ComfyUI does not detect a shell without blocks.
        Some(kept.into_iter().map(|depth| depth.unwrap_or(1).max(1)).collect())
    };
    let levels = (pruned.levels.iter().zip(pruned.kept_depths()).enumerate())
        .map(|(index, (level, (down, up)))| {
            let down = down.iter().map(|_| encoder.next().copied().filter(|&depth| depth > 0)).collect();
            Level {
                down_depths: way(format!("down_blocks.{index}"), down),
                up_depths: way(format!("up_blocks.{}", last - index), up),
                ..level.clone()
            }
        })
        .collect();
    UNetConfig { levels, mid: middle(pruned), removed_units, ..pruned.clone() }
}

fn unrecognised_by_comfyui(pruned: &UNetConfig) -> Option<String> {
    let known = || comfyui(pruned).iter().all(|target| ENCODERS.contains(&encoder(target).as_slice()));
    match family(pruned) {
        Some(Family::Sdxl) if known() => None,
        Some(Family::Sd1 | Family::Sd2) => None,
        _ => Some(format!(
            "ComfyUI recognises U-Nets by their widths, and does not support these ({})",
            widths(pruned)
        )),
    }
}

/// The shapes that stable-diffusion.cpp supports; for a U-Net with other layers, its shape before pruning.
fn sdcpp(pruned: &UNetConfig) -> Vec<UNetConfig> {
    let known = known_to_sdcpp(pruned);
    if known.is_empty() { vec![whole(pruned)] } else { known }
}

fn known_to_sdcpp(pruned: &UNetConfig) -> Vec<UNetConfig> {
    let layers: Vec<usize> = pruned.levels.iter().map(|level| level.layers).collect();
    let (down, up) = (layers.iter().sum::<usize>(), layers.iter().map(|layers| layers + 1).sum::<usize>());
    let alike = SDCPP.iter().filter(|known| (known.down.len(), known.up.len()) == (down, up));
    alike.map(|known| shaped(pruned, known)).collect()
}

/// `pruned` with the transformers of `known`.
fn shaped(pruned: &UNetConfig, known: &KnownDepths) -> UNetConfig {
    let (mut down, mut up) = (known.down, known.up);
    let take = |depths: &mut &[usize], count: usize| {
        let (here, rest) = depths.split_at(count);
        *depths = rest;
        here.iter().any(|&depth| depth > 0).then(|| here.to_vec())
    };
    let levels = pruned.levels.iter().map(|level| Level {
        down_depths: take(&mut down, level.layers),
        up_depths: take(&mut up, level.layers + 1),
        ..level.clone()
    });
    UNetConfig { levels: levels.collect(), mid: known.mid, removed_units: BTreeSet::new(), ..pruned.clone() }
}

fn unrecognised_by_sdcpp(pruned: &UNetConfig) -> Option<String> {
    let holds = |target| Assembly::new(pruned, target, None).is_ok();
    if family(pruned).is_some() && known_to_sdcpp(pruned).into_iter().any(holds) {
        return None;
    }
    Some(format!(
        "stable-diffusion.cpp supports the U-Nets of SD 1.x, SD 2.x, SDXL, SSD-1B and Vega, and none of them contains \
         this one ({})",
        widths(pruned)
    ))
}

/// The shape before pruning.
fn whole(pruned: &UNetConfig) -> UNetConfig {
    UNetConfig { removed_units: BTreeSet::new(), ..pruned.clone() }
}

/// The families that loaders of single files know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Sd1,
    Sd2,
    Sdxl,
}

/// The family, by the widths that loaders check.
pub(super) fn family(unet: &UNetConfig) -> Option<Family> {
    let text = unet.innermost().cross_attention_dim;
    let second = unet.text_time.map(|text_time| text_time.input_dim);
    match (unet.levels[0].channels, text, second, unet.use_linear_projection) {
        (320, 768, None, false) => Some(Family::Sd1),
        (320, 1024, None, true) => Some(Family::Sd2),
        (320, 2048, Some(2816), true) => Some(Family::Sdxl),
        _ => None,
    }
}

fn widths(unet: &UNetConfig) -> String {
    format!("{} channels, text width {}", unet.levels[0].channels, unet.innermost().cross_attention_dim)
}
