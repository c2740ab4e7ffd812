//! The state that passes through a network's list of steps.

use candle_core::{Result, Tensor};

/// The state of a walk through a U-Net.
#[derive(Clone, Debug)]
pub struct WalkState {
    /// The features: an image (see `nn::image`), or tokens [b, h*w, c] inside a transformer's shell; after the last step,
    /// [b, c, h, w].
    pub hidden: Tensor,
    /// Features stored for the up path, the newest last.
    pub skips: Vec<Tensor>,
    /// The input of the open transformer shell, an image.
    pub residual: Option<Tensor>,
}

impl WalkState {
    /// Replaces each tensor.
    pub fn each(&mut self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        let Self { hidden, skips, residual } = self;
        let mut tensors = [hidden].into_iter().chain(skips).chain(residual);
        tensors.try_for_each(|tensor| {
            *tensor = change(tensor)?;
            Ok(())
        })
    }
}
