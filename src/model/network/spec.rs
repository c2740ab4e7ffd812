//! The list of a network's steps, before any weights: what each step does, and every size that it needs to be built.
//! Everything that is known of a network without its weights is read from this list, and the weights are read in its
//! order.

use crate::base::UnitId;

/// One step, by the path of the diffusers module whose output it completes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model) struct Spec {
    pub(in crate::model) path: String,
    pub(in crate::model) kind: Kind,
}

/// A group norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) struct Groups {
    pub(in crate::model) groups: usize,
    pub(in crate::model) eps: f64,
}

/// What a step does to the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) enum Kind {
    /// The first convolution.
    ConvIn { inputs: usize, outputs: usize },
    /// Keeps the features for the way up.
    PushSkip,
    /// Appends the last kept features as channels.
    Concatenate,
    /// A ResNet, with a learned shortcut where the widths differ. `time` is the width of the time embedding.
    Resnet { inputs: usize, outputs: usize, time: usize, norm: Groups },
    /// What remains of a removed ResNet whose widths differ.
    Shortcut { inputs: usize, outputs: usize },
    /// Opens a transformer's shell: norm, projection, from pixels to tokens. `linear` says whether the projection is a
    /// linear layer instead of a 1x1 convolution.
    Enter { channels: usize, groups: usize, linear: bool },
    /// The first part of a transformer block: a norm and attention of the tokens to one another.
    SelfAttention { channels: usize, heads: usize },
    /// The second: a norm and attention of the tokens to the text.
    CrossAttention { channels: usize, heads: usize, context: usize },
    /// The third: a norm and the gated feed-forward layer.
    FeedForward { channels: usize },
    /// Does nothing: the tokens are a transformer block's output.
    Block,
    /// Closes a transformer's shell: back to pixels, projection, residual.
    Exit { channels: usize, linear: bool },
    /// Halves the resolution.
    Downsample { channels: usize },
    /// Doubles the resolution.
    Upsample { channels: usize },
    /// Does nothing: the features are a stage's output.
    Stage,
    /// The last norm and convolution.
    ConvOut { inputs: usize, outputs: usize, norm: Groups },
}

/// The parts of a transformer block in walk order, each with the norm that it owns.
pub(in crate::model) const PARTS: [(&str, &str); 3] =
    [("attn1", "norm1"), ("attn2", "norm2"), ("ff", "norm3")];

/// The path of the first half of a shell; the second has the path of the Transformer2D itself.
pub(in crate::model) const ENTER: &str = ".proj_in";

/// Whether a module or tensor lies inside of a module.
pub(in crate::model) fn within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.starts_with('.'))
}

/// The path of the norm that a part of a transformer block owns; it lies beside the part.
pub(in crate::model) fn norm_of(part: &str) -> Option<String> {
    let (block, name) = part.rsplit_once('.')?;
    let (_, norm) = PARTS.into_iter().find(|(part, _)| *part == name)?;
    Some(format!("{block}.{norm}"))
}

/// The id of a block of the Transformer2D at `path`.
pub(in crate::model) fn block_id(path: &str, block: usize) -> UnitId {
    UnitId::from(format!("{path}.transformer_blocks.{block}"))
}
