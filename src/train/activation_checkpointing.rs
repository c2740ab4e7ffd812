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

    /// The most bytes of activations and gradients at one moment of a backward pass. A segment's gradients come as its activations
    /// go. `value` is the size of one activation in all samples of the pass, and `gradients` those of each segment's weights.
    pub fn backward_bytes(self, segments: &[Segment], value: u64, gradients: &[u64]) -> u64 {
        let all = |segment: &Segment| segment.inner_elements + segment.output_elements;
        let groups = self.groups(segments);
        // The states between groups.
        let kept = |group: &Range<usize>| segments[group.end - 1].output_elements;
        let mut between: u64 = groups.iter().map(kept).sum();
        let (mut made, mut most) = (0, 0);
        for group in groups.iter().rev() {
            between -= kept(group);
            let mut inside: u64 = segments[group.clone()].iter().map(all).sum();
            for index in group.clone().rev() {
                made += gradients[index];
                most = most.max((between + inside) * value + made);
                inside -= all(&segments[index]);
            }
        }
        most
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
        let none = vec![0; segments.len()];
        let bytes = ActivationCheckpointing::ALL.map(|chosen| chosen.backward_bytes(&segments, 1, &none));
        assert!(bytes[1] < bytes[0] / 2 && bytes[2] < bytes[1] / 2, "{bytes:?}");
        // All gradients at the end, or all activations at the begin, but never both.
        let gradients = vec![bytes[0] / segments.len() as u64; segments.len()];
        let both = ActivationCheckpointing::None.backward_bytes(&segments, 1, &gradients);
        assert!((bytes[0]..2 * bytes[0] * 8 / 10).contains(&both), "{both} beside {bytes:?}");
    }
}
