//! The list of steps divided into segments: a ResNet, a transformer block, a change of resolution. Training differentiates
//! one segment after the other, so that what a segment computed inside can be dropped and computed again.

use std::ops::Range;

use super::inventory::Inventory;
use super::spec::{Kind, Spec};

/// Consecutive steps that are differentiated together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The steps.
    pub steps: Range<usize>,
    /// `down_blocks.0`, `mid_block`, `up_blocks.1`; for the first and the last convolution, their own name.
    pub stage: String,
    /// How many skips it reads: the newest ones at its begin.
    pub skips: usize,
    /// Values that its backward pass needs, for one sample.
    pub inner_elements: u64,
    /// Values of its output, for one sample.
    pub output_elements: u64,
    /// Whether its output is that of its stage.
    pub ends_stage: bool,
}

impl Inventory {
    /// The segments in walk order, with their sizes for latents of this height and width.
    pub fn segments(&self, height: usize, width: usize) -> Vec<Segment> {
        let specs = self.specs();
        let mut segments: Vec<Segment> = Vec::new();
        let (mut channels, mut skips) = (0, Vec::new());
        for (index, (spec, pixels)) in specs.iter().zip(self.pixels_per_step((height, width))).enumerate() {
            if begins(specs, index) {
                let stage = stage(&spec.path).to_owned();
                segments.push(Segment {
                    steps: index..index,
                    stage,
                    skips: 0,
                    inner_elements: 0,
                    output_elements: 0,
                    ends_stage: false,
                });
            }
            let segment = segments.last_mut().expect("the first step begins a segment");
            segment.steps.end = index + 1;
            segment.inner_elements += inner(&spec.kind, channels, skips.last().copied()) * pixels;
            match spec.kind {
                Kind::ConvIn { outputs, .. }
                | Kind::Resnet { outputs, .. }
                | Kind::Shortcut { outputs, .. }
                | Kind::ConvOut { outputs, .. } => channels = outputs as u64,
                Kind::PushSkip => skips.push(channels),
                Kind::Concatenate => {
                    segment.skips += 1;
                    channels += skips.pop().unwrap_or(0);
                }
                _ => {}
            }
            segment.output_elements = channels * pixels;
            segment.ends_stage |= spec.kind == Kind::Stage;
        }
        segments
    }
}

/// Whether a step begins a segment. Marks and skips belong to the step before them, a concatenation to the ResNet after
/// it, and a transformer's shell to its first and its last block.
fn begins(specs: &[Spec], index: usize) -> bool {
    let Some(before) = index.checked_sub(1).map(|before| &specs[before].kind) else { return true };
    match specs[index].kind {
        Kind::PushSkip | Kind::Stage | Kind::Block | Kind::Exit { .. } => false,
        Kind::Resnet { .. } | Kind::Shortcut { .. } => *before != Kind::Concatenate,
        Kind::SelfAttention { .. }
        | Kind::CrossAttention { .. }
        | Kind::FeedForward { .. }
        | Kind::Map { .. } => *before == Kind::Block,
        _ => true,
    }
}

/// Values per pixel after the step that the tape holds for the backward pass: the inputs and outputs of all
/// operations but the last one's output, which is the input of the next step. `channels` are those before the step.
fn inner(kind: &Kind, channels: u64, skip: Option<u64>) -> u64 {
    match *kind {
        Kind::PushSkip | Kind::Stage | Kind::Block => 0,
        Kind::ConvIn { outputs, .. } => outputs as u64,
        Kind::Concatenate => channels + skip.unwrap_or(0),
        // Two norms, two convolutions, the sum with the time, and the sum with the input.
        Kind::Resnet { inputs, outputs, .. } => {
            let (inputs, outputs) = (inputs as u64, outputs as u64);
            inputs + 5 * outputs + if inputs == outputs { 0 } else { outputs }
        }
        Kind::Shortcut { outputs, .. } => outputs as u64,
        Kind::Map { .. } => channels,
        // The norm, its tokens, the projection.
        Kind::Enter { .. } => 3 * channels,
        // The norm, queries, keys, values, what was read, its projection, the sum.
        Kind::SelfAttention { .. } => 7 * channels,
        Kind::CrossAttention { .. } => 5 * channels,
        // The norm, the two halves of four widths, their product, its projection, the sum.
        Kind::FeedForward { .. } => (1 + 8 + 4 + 2) * channels,
        // The projection, its pixels, the sum.
        Kind::Exit { .. } => 3 * channels,
        Kind::Downsample { .. } | Kind::Upsample { .. } => channels,
        // The norm has the width before the step.
        Kind::ConvOut { outputs, .. } => channels + outputs as u64,
    }
}

/// The stage that a path belongs to.
fn stage(path: &str) -> &str {
    let parts = if path.starts_with("mid_block") { 1 } else { 2 };
    let end = path.match_indices('.').nth(parts - 1).map_or(path.len(), |(index, _)| index);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use crate::model::UNetConfig;

    #[test]
    fn segments_are_whole_units_and_cover_all_steps() {
        // diffusers' default has SD 1.x' four levels of two layers.
        let inventory = UNetConfig::parse("{}").expect("diffusers' default").inventory();
        let segments = inventory.segments(64, 64);
        let mut next = 0;
        for segment in &segments {
            assert_eq!(segment.steps.start, next);
            next = segment.steps.end;
        }
        assert_eq!(next, inventory.specs().len());
        let begins: Vec<usize> = segments.iter().map(|segment| segment.steps.start).collect();
        for unit in inventory.units() {
            let inside = begins.iter().filter(|begin| unit.steps.contains(begin)).count();
            let most =
                inventory.units().iter().filter(|other| other.parent.as_ref() == Some(&unit.id)).count();
            assert!(inside <= most.max(1), "{} is divided into {inside}", unit.id);
        }
        assert_eq!(segments.iter().map(|segment| segment.skips).sum::<usize>(), 12);
        let stages: Vec<&str> = segments.iter().map(|segment| segment.stage.as_str()).collect();
        assert_eq!(
            (stages[0], stages[1], stages[stages.len() - 1]),
            ("conv_in", "down_blocks.0", "conv_out")
        );
        assert!(stages.contains(&"mid_block") && stages.contains(&"up_blocks.3"), "{stages:?}");
    }
}
