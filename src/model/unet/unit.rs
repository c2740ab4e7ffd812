//! What can be removed from a U-Net: residual branches, each named by its diffusers module path.

use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::UnitId;

/// A residual branch, or a whole Transformer2D with the branches in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its module path.
    pub id: UnitId,
    /// What it is.
    pub kind: UnitKind,
    /// Parameters that go when it is removed; a learned shortcut stays and is not among them.
    pub parameters: u64,
    /// Multiply-accumulates that go with it, per sample at the configuration's `sample_size`.
    pub macs: u64,
    /// Its steps in the U-Net's list.
    pub steps: Range<usize>,
    /// A block's Transformer2D.
    pub parent: Option<UnitId>,
    /// Whether a learned shortcut remains when it is removed.
    pub has_shortcut: bool,
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
}

impl fmt::Display for UnitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resnet => "resnet",
            Self::Block => "block",
            Self::Transformer => "transformer",
        })
    }
}
