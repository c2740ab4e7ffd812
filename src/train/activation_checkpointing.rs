//! What the forward pass keeps for the backward pass, and what is computed again (activation checkpointing; Chen et al.
//! 2016, arXiv 1604.06174). The gradients are the same to the last bit: they are always computed segment by segment.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::network::Segment;

/// What is computed again in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActivationCheckpointing {
    /// Nothing: all activations are kept.
    #[default]
    None,
    /// The activations inside a stage (`down_blocks.0`, `mid_block`, ..). Only the outputs of stages, and skips, are kept.
    Stage,
    /// The activations inside a unit, which is a ResNet or a transformer block. Least memory.
    Unit,
}

impl ActivationCheckpointing {
    /// All, from the one that needs most memory.
    pub const ALL: [Self; 3] = [Self::None, Self::Stage, Self::Unit];

    /// Its word in a pipeline file.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Stage => "stage",
            Self::Unit => "unit",
        }
    }

    /// The segments that are computed again together, in walk order.
    pub(super) fn groups(self, segments: &[Segment]) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let joined = match self {
                Self::None => index > 0,
                Self::Stage => index > 0 && segments[index - 1].stage == segment.stage,
                Self::Unit => false,
            };
            match groups.last_mut() {
                Some(group) if joined => group.end = index + 1,
                _ => groups.push(index..index + 1),
            }
        }
        groups
    }

    /// Values that a pass keeps at most, for one sample: the states between groups, and what is inside the largest group.
    pub fn elements(self, segments: &[Segment]) -> u64 {
        let groups = self.groups(segments);
        let kept = |group: &Range<usize>| segments[group.end - 1].output_elements;
        let between: u64 = groups[..groups.len() - 1].iter().map(kept).sum();
        let inside = |group: &Range<usize>| {
            let segments = &segments[group.clone()];
            segments.iter().map(|segment| segment.inner_elements + segment.output_elements).sum()
        };
        between + groups.iter().map(inside).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UNetConfig;

    #[test]
    fn finer_groups_keep_less() {
        let segments = UNetConfig::parse("{}").expect("diffusers' default").inventory().segments(64, 64);
        let groups = ActivationCheckpointing::ALL.map(|checkpointing| checkpointing.groups(&segments).len());
        // Four stages down, the middle, four up, and the first and the last convolution.
        assert_eq!((groups[0], groups[1], groups[2]), (1, 11, segments.len()));
        let elements = ActivationCheckpointing::ALL.map(|checkpointing| checkpointing.elements(&segments));
        assert!(elements[1] < elements[0] / 2 && elements[2] < elements[1] / 2, "{elements:?}");
    }
}
