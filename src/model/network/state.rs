//! What walks through a network's list of steps.

use candle_core::Tensor;

/// What walks through a U-Net.
#[derive(Clone, Debug)]
pub struct WalkState {
    /// The features: pixels [b, c, h, w], or tokens [b, h*w, c] while a transformer's shell is open.
    pub hidden: Tensor,
    /// Features kept for the way up, the newest last.
    pub skips: Vec<Tensor>,
    /// What entered the open transformer's shell, [b, c, h, w].
    pub residual: Option<Tensor>,
}
