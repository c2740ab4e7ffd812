//! The state that passes through a network's list of steps.

use candle_core::Tensor;

/// The state of a walk through a U-Net.
#[derive(Clone, Debug)]
pub struct WalkState {
    /// The features: pixels [b, c, h, w], or tokens [b, h*w, c] inside a transformer's shell.
    pub hidden: Tensor,
    /// Features stored for the up path, the newest last.
    pub skips: Vec<Tensor>,
    /// The input of the open transformer shell, [b, c, h, w].
    pub residual: Option<Tensor>,
}
