//! Walking a U-Net's list of steps: the forward pass, and everything that looks inside of one.

use candle_core::{Result, Tensor};

use super::UNet;
use super::embedding::{Condition, Conditioning};

/// What walks through a U-Net.
#[derive(Clone, Debug)]
pub struct State {
    /// The features: pixels [b, c, h, w], or tokens [b, h*w, c] while a transformer's shell is open.
    pub hidden: Tensor,
    /// Features kept for the way up, the newest last.
    pub skips: Vec<Tensor>,
    /// What entered the open transformer's shell, [b, c, h, w].
    pub residual: Option<Tensor>,
}

impl UNet {
    /// What the steps need to know besides the latents. `timestep` `[b]` may be of any numeric type.
    pub fn condition(&self, timestep: &Tensor, conditioning: &Conditioning) -> Result<Condition> {
        self.embedding.forward(&self.config, timestep, conditioning, self.dtype)
    }

    /// The state before the first step, for latents [b, in_channels, h, w].
    pub fn begin(&self, sample: &Tensor) -> Result<State> {
        Ok(State { hidden: sample.to_dtype(self.dtype)?, skips: Vec::new(), residual: None })
    }

    /// The prediction [b, out_channels, h, w] for latents [b, in_channels, h, w], in the model's dtype.
    pub fn forward(&self, sample: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        self.forward_with_taps(sample, timestep, conditioning, &mut |_, _| {})
    }

    /// Like [`UNet::forward`], and shows `tap` what each step leaves, by its path. Among the paths are those of
    /// the stages (`down_blocks.0`, `mid_block`, `up_blocks.3`: [b, c, h, w]) and of the units
    /// (of transformer blocks: tokens [b, h*w, c]).
    pub fn forward_with_taps(
        &self,
        sample: &Tensor,
        timestep: &Tensor,
        conditioning: &Conditioning,
        tap: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let condition = self.condition(timestep, conditioning)?;
        let mut state = self.begin(sample)?;
        for step in self.steps() {
            let step = step?;
            step.advance(&mut state, &condition)?;
            tap(step.path(), &state.hidden);
        }
        Ok(state.hidden)
    }
}
