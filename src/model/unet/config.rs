//! The shape of a U-Net, from the `config.json` that diffusers writes. What that file says in several
//! ways (a number or a list, down or up order) is said here in one: a list of levels, outermost first.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use miette::Diagnostic;
use thiserror::Error;

use super::prune;
use super::raw::Raw;
use crate::base::UnitId;

/// The shape of a `UNet2DConditionModel`, with what was removed from it.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Height and width of the latents that it was trained on.
    pub sample_size: (usize, usize),
    /// The resolutions, the outermost first.
    pub levels: Vec<Level>,
    /// What lies between the way down and the way up.
    pub mid: Mid,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the ResNets' norms and of the last one.
    pub norm_eps: f64,
    /// Whether a transformer's shell projects by a linear layer instead of a 1x1 convolution.
    pub use_linear_projection: bool,
    /// Whether the timestep's cosines come before its sines.
    pub flip_sin_to_cos: bool,
    /// Shift in the timestep's frequencies.
    pub freq_shift: f64,
    /// Width of the time embedding.
    pub time_embed_dim: usize,
    /// SDXL's second condition: pooled text and picture sizes.
    pub text_time: Option<TextTime>,
    /// Units that are gone, in normal form: of a block without parts the block, of a transformer without blocks the
    /// whole, and never what is inside of these.
    /// An extra key of ours in `config.json`.
    pub removed_units: BTreeSet<UnitId>,
}

/// One resolution of a U-Net.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Channels of its features.
    pub channels: usize,
    /// Heads of its attention.
    pub heads: usize,
    /// Width of the text states that its attention reads.
    pub cross_attention_dim: usize,
    /// ResNets on the way down; on the way up there is one more.
    pub layers: usize,
    /// Blocks of each transformer on the way down; `None` without attention.
    pub down_depths: Option<Vec<usize>>,
    /// Blocks of each transformer on the way up; `None` without attention.
    pub up_depths: Option<Vec<usize>>,
}

/// What lies between the way down and the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mid {
    /// Nothing.
    None,
    /// One ResNet.
    Resnet,
    /// A ResNet, a transformer of this depth, a ResNet.
    CrossAttention {
        /// Blocks of the transformer.
        depth: usize,
    },
}

impl Mid {
    /// How many ResNets lie there.
    pub fn resnets(self) -> usize {
        match self {
            Self::None => 0,
            Self::Resnet => 1,
            Self::CrossAttention { .. } => 2,
        }
    }

    /// Blocks of the transformer there; `None` without one.
    pub fn depth(self) -> Option<usize> {
        match self {
            Self::CrossAttention { depth } => Some(depth),
            Self::None | Self::Resnet => None,
        }
    }
}

/// SDXL's second condition, added to the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTime {
    /// Width of the embedding of each of the six sizes.
    pub time_dim: usize,
    /// Width of the pooled text and all embedded sizes together.
    pub input_dim: usize,
}

/// A `config.json` that we cannot build.
#[derive(Debug, Error, Diagnostic)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    #[diagnostic(code(unet::config_read), help("a U-Net's folder holds its config.json beside its weights"))]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The text is no JSON, or a key has a value of another type.
    #[error("the U-Net's config.json cannot be parsed: {0}")]
    #[diagnostic(code(unet::config_parse), help("expected what diffusers writes for a UNet2DConditionModel"))]
    Parse(#[from] serde_json::Error),
    /// A feature of other models.
    #[error("the U-Net's config.json has `{key}` = {found}, but only {needed} is supported")]
    #[diagnostic(
        code(unet::unsupported),
        help("Stable Diffusion 1.x, 2.x and SDXL, and what was pruned from them, are supported")
    )]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        needed: String,
    },
    /// Values that contradict one another.
    #[error("the U-Net's config.json contradicts itself: `{key}` is {found}, but {needed}")]
    #[diagnostic(
        code(unet::contradiction),
        help("compare it with the config.json of the model it came from")
    )]
    Contradiction {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What the other values ask for.
        needed: String,
    },
    /// A removed unit that the model never had.
    #[error("the U-Net's config.json removes `{unit}`, which such a U-Net does not have")]
    #[diagnostic(
        code(unet::unknown_removed_unit),
        help("`laptop-diff inspect MODEL --granularity resnet,attn1,attn2,ff` lists all that can go")
    )]
    UnknownUnit {
        /// The id.
        unit: UnitId,
    },
}

impl UNetConfig {
    /// Reads a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of a `config.json`. Unknown keys are ignored, known ones with unsupported values are not.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (mut config, removed) = Raw::resolve(text)?;
        config.removed_units =
            prune::normalise(&config, &removed).map_err(|unit| ConfigError::UnknownUnit { unit })?;
        Ok(config)
    }

    /// The channels of the innermost level.
    pub fn innermost(&self) -> &Level {
        self.levels.last().expect("a configuration without levels is refused when it is read")
    }
}
