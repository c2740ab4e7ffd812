//! The removable units of a U-Net: residual branches, each named by its diffusers module path.

use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::UnitId;

/// A residual branch, or a composite of several: a transformer block (its parts), a Transformer2D (its shell and
/// blocks).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its module path.
    pub id: UnitId,
    /// Its kind.
    pub kind: UnitKind,
    /// Number of parameters removed with it; a learned shortcut remains and is not counted.
    pub parameters: u64,
    /// Multiply-accumulates saved by its removal, per sample at the configuration's `sample_size`.
    pub macs: u64,
    /// Its steps in the U-Net's list.
    pub steps: Range<usize>,
    /// The unit that directly contains it: the block of a part, the Transformer2D of a block.
    pub parent: Option<UnitId>,
    /// Whether a learned shortcut remains when it is removed.
    pub has_shortcut: bool,
    /// What a linear map in its place costs; none where a learned shortcut remains, which is such a map already.
    pub map: Option<LinearMap>,
}

/// The cost of a linear map in place of a removed unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearMap {
    /// Weight and bias.
    pub parameters: u64,
    /// Multiply-accumulates per sample at the configuration's `sample_size`.
    pub macs: u64,
}

/// The kinds of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// A ResNet's branch.
    Resnet,
    /// One block of a Transformer2D that has several.
    Block,
    /// A whole Transformer2D: its blocks and its shell.
    Transformer,
    /// A block's self-attention, with its norm.
    Attn1,
    /// A block's attention to the text, with its norm.
    Attn2,
    /// A block's feed-forward layer, with its norm.
    Ff,
}

impl UnitKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Resnet, Self::Block, Self::Transformer, Self::Attn1, Self::Attn2, Self::Ff];
    /// The parts of a transformer block.
    pub const PARTS: [Self; 3] = [Self::Attn1, Self::Attn2, Self::Ff];
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resnet => "resnet",
            Self::Block => "block",
            Self::Transformer => "transformer",
            Self::Attn1 => "attn1",
            Self::Attn2 => "attn2",
            Self::Ff => "ff",
        })
    }
}
