//! A network's list of steps before any weights are read: what each step does, and every size needed to build it.
//! Everything known of a network without its weights is derived from this list, and weights are read in its order.

use crate::base::UnitId;

/// One step, named by the path of the diffusers module whose output it completes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model) struct Spec {
    pub(in crate::model) path: String,
    pub(in crate::model) kind: Kind,
}

impl Spec {
    /// Whether it is the linear map in place of a removed unit.
    pub(in crate::model) fn is_map(&self) -> bool {
        match self.kind {
            Kind::Shortcut { inputs, outputs } => inputs == outputs,
            Kind::Map { .. } => true,
            _ => false,
        }
    }
}

/// A group norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) struct Groups {
    pub(in crate::model) groups: usize,
    pub(in crate::model) eps: f64,
}

/// The operation of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) enum Kind {
    /// The first convolution.
    ConvIn { inputs: usize, outputs: usize },
    /// Stores the features for the up path.
    PushSkip,
    /// Appends the most recently stored features as channels.
    Concatenate,
    /// A ResNet, with a learned shortcut if the widths differ. `time` is the width of the time embedding.
    Resnet { inputs: usize, outputs: usize, time: usize, norm: Groups },
    /// The shortcut that remains of a removed ResNet whose widths differ; with equal widths, the linear map in place of a
    /// removed ResNet or Transformer2D.
    Shortcut { inputs: usize, outputs: usize },
    /// The linear map in place of a removed transformer block or one of its parts.
    Map { channels: usize },
    /// Opens a transformer's shell: norm, projection, pixels to tokens. `linear` says whether the projection is a
    /// linear layer instead of a 1x1 convolution.
    Enter { channels: usize, groups: usize, linear: bool },
    /// The first part of a transformer block: a norm and self-attention.
    SelfAttention { channels: usize, heads: usize },
    /// The second part: a norm and attention to the text.
    CrossAttention { channels: usize, heads: usize, context: usize },
    /// The third part: a norm and the gated feed-forward layer.
    FeedForward { channels: usize },
    /// No operation; marks the tokens as a transformer block's output.
    Block,
    /// Closes a transformer's shell: back to pixels, projection, residual.
    Exit { channels: usize, linear: bool },
    /// Halves the resolution.
    Downsample { channels: usize },
    /// Doubles the resolution.
    Upsample { channels: usize },
    /// No operation; marks the features as a stage's output.
    Stage,
    /// The last norm and convolution.
    ConvOut { inputs: usize, outputs: usize, norm: Groups },
}

/// The parts of a transformer block in walk order, each with its norm.
pub(in crate::model) const PARTS: [(&str, &str); 3] =
    [("attn1", "norm1"), ("attn2", "norm2"), ("ff", "norm3")];

/// The path suffix of the first half of a shell; the second half has the path of the Transformer2D itself.
pub(in crate::model) const ENTER: &str = ".proj_in";

/// The path suffix of the layer of a [`Kind::Map`].
pub(in crate::model) const MAP: &str = "linear";

/// Whether a module or tensor is inside a module.
pub(in crate::model) fn within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}

/// The path of the norm of a transformer block's part; the norm is a sibling of the part.
pub(in crate::model) fn norm_of(part: &str) -> Option<String> {
    let (block, name) = part.rsplit_once('.')?;
    let (_, norm) = PARTS.into_iter().find(|(part, _)| *part == name)?;
    Some(format!("{block}.{norm}"))
}

/// The id of a block of the Transformer2D at `path`.
pub(in crate::model) fn block_id(path: &str, block: usize) -> UnitId {
    UnitId::from(format!("{path}.transformer_blocks.{block}"))
}
