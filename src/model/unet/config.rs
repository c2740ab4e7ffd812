//! The shape of a U-Net, from the `config.json` that diffusers writes. What that file says in several
//! ways (a number or a list, down or up order) is said here in one: a list of levels, outermost first.

use std::collections::BTreeSet;

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

impl UNetConfig {
    /// The channels of the innermost level.
    pub fn innermost(&self) -> &Level {
        self.levels.last().expect("a configuration without levels is refused when it is read")
    }
}
