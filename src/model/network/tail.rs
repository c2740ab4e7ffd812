//! The linear layer that a step ends with. Its output and what goes around it add up to the state after the step, so that
//! the layer can be solved anew for another state.

use super::spec::{Kind, MAP, Spec};

/// Which linear layer a step ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TailKind {
    /// The 1x1 convolution that remains of a ResNet whose branch is removed.
    Shortcut,
    /// The linear map in place of a removed unit.
    Linear,
    /// The last layer of a transformer's shell, or of an attention or feed-forward layer.
    Projection,
    /// The second convolution of a ResNet.
    Conv2,
    /// The last convolution of the U-Net.
    ConvOut,
}

/// The linear layer that a step ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Which one it is.
    pub kind: TailKind,
    /// The name of the layer, to which `.weight` and `.bias` are added: `mid_block.resnets.0.conv2`.
    pub name: String,
    /// Height and width of its kernel: 3, or 1 where each position stands for itself.
    pub kernel: usize,
    /// Channels that it reads.
    pub inputs: usize,
    /// Channels that it writes.
    pub outputs: usize,
}

impl Tail {
    pub(super) fn of(spec: &Spec) -> Option<Self> {
        let path = &spec.path;
        let (kind, name, kernel, inputs, outputs) = match spec.kind {
            Kind::Shortcut { inputs, outputs } => {
                let kind = if inputs == outputs { TailKind::Linear } else { TailKind::Shortcut };
                (kind, format!("{path}.conv_shortcut"), 1, inputs, outputs)
            }
            Kind::Map { channels } => (TailKind::Linear, format!("{path}.{MAP}"), 1, channels, channels),
            Kind::Resnet { outputs, .. } => (TailKind::Conv2, format!("{path}.conv2"), 3, outputs, outputs),
            Kind::Exit { channels, .. } => {
                (TailKind::Projection, format!("{path}.proj_out"), 1, channels, channels)
            }
            Kind::SelfAttention { channels, .. } | Kind::CrossAttention { channels, .. } => {
                (TailKind::Projection, format!("{path}.to_out.0"), 1, channels, channels)
            }
            Kind::FeedForward { channels } => {
                (TailKind::Projection, format!("{path}.net.2"), 1, 4 * channels, channels)
            }
            Kind::ConvOut { inputs, outputs, .. } => (TailKind::ConvOut, path.clone(), 3, inputs, outputs),
            _ => return None,
        };
        Some(Self { kind, name, kernel, inputs, outputs })
    }
}
