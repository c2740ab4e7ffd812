//! The shape of a U-Net, from the `config.json` that diffusers writes. Where that file allows several notations (a
//! number or a list, down or up order), this has one: a list of levels, outermost first.

use std::collections::BTreeSet;

use crate::base::UnitId;

/// Embedded sizes in SDXL's second condition.
pub const SIZES: usize = 6;

/// The shape of a `UNet2DConditionModel`, including the units removed from it.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Height and width of the latents in training.
    pub sample_size: (usize, usize),
    /// The resolutions, outermost first.
    pub levels: Vec<Level>,
    /// The blocks between the down path and the up path.
    pub mid: Mid,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Epsilon of the ResNets' norms and of the last norm.
    pub norm_eps: f64,
    /// Whether a transformer's shell projects with a linear layer instead of a 1x1 convolution.
    pub use_linear_projection: bool,
    /// Whether the cosines of the timestep embedding come before its sines.
    pub flip_sin_to_cos: bool,
    /// Shift of the timestep embedding's frequencies.
    pub freq_shift: f64,
    /// Width of the time embedding.
    pub time_embed_dim: usize,
    /// SDXL's second condition: pooled text and picture sizes.
    pub text_time: Option<TextTime>,
    /// Removed units in normal form: a block instead of all its parts, a transformer instead of all its blocks, and
    /// nothing inside a removed unit. An additional key of `config.json` that diffusers does not define.
    pub removed_units: BTreeSet<UnitId>,
    /// The removed units with a linear map in their place: a 1x1 convolution or, inside a Transformer2D, a linear layer. A
    /// further key of `config.json`.
    pub linear_units: BTreeSet<UnitId>,
}

/// One resolution of a U-Net.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Channels of its features.
    pub channels: usize,
    /// Heads of its attention layers.
    pub heads: usize,
    /// Width of the text states that its attention layers read.
    pub cross_attention_dim: usize,
    /// ResNets on the down path; the up path has one more.
    pub layers: usize,
    /// Blocks of each transformer on the down path; `None` without attention.
    pub down_depths: Option<Vec<usize>>,
    /// Blocks of each transformer on the up path; `None` without attention.
    pub up_depths: Option<Vec<usize>>,
}

/// The blocks between the down path and the up path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mid {
    /// No blocks.
    None,
    /// One ResNet.
    Resnet,
    /// A ResNet, a transformer of this depth, a ResNet.
    CrossAttention {
        /// Number of blocks of the transformer.
        depth: usize,
    },
}

impl Mid {
    /// Number of ResNets in the middle.
    pub fn resnets(self) -> usize {
        match self {
            Self::None => 0,
            Self::Resnet => 1,
            Self::CrossAttention { .. } => 2,
        }
    }

    /// Blocks of the transformer in the middle; `None` without one.
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
    /// Total width of the pooled text and all embedded sizes.
    pub input_dim: usize,
}

impl UNetConfig {
    /// The channels of the innermost level.
    pub fn innermost(&self) -> &Level {
        self.levels.last().expect("a configuration without levels is refused when it is read")
    }

    /// A width of text states other than `width` that some attention layer reads.
    pub fn other_text_width(&self, width: usize) -> Option<usize> {
        let attends = |depths: &Option<Vec<usize>>| depths.iter().flatten().any(|depth| *depth > 0);
        let last = self.levels.len() - 1;
        let reads = self.levels.iter().enumerate().filter(|(index, level)| {
            let mid = *index == last && self.mid.depth().is_some_and(|depth| depth > 0);
            mid || attends(&level.down_depths) || attends(&level.up_depths)
        });
        reads.map(|(_, level)| level.cross_attention_dim).find(|needed| *needed != width)
    }

    /// Width of the pooled text that SDXL's U-Nets read.
    pub fn pooled_width(&self) -> Option<usize> {
        let TextTime { time_dim, input_dim } = self.text_time?;
        Some(input_dim.saturating_sub(SIZES * time_dim))
    }
}
