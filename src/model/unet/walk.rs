//! Walking a U-Net's list of steps: the forward pass, and everything that looks inside of one.

use candle_core::{Result, Tensor, bail};

use super::UNet;
use super::embedding::{Condition, Conditioning};

/// What walks through a U-Net. Several states can walk together as one batch.
#[derive(Clone, Debug)]
pub struct State {
    /// The features: pixels [b, c, h, w], or tokens [b, h*w, c] while a transformer's shell is open.
    pub hidden: Tensor,
    /// Features kept for the way up, the newest last.
    pub skips: Vec<Tensor>,
    /// What entered the open transformer's shell, [b, c, h, w].
    pub residual: Option<Tensor>,
}

impl State {
    /// Puts states at the same place of their walks into one batch, in this order.
    pub fn cat(states: &[Self]) -> Result<Self> {
        let Some(first) = states.first() else { bail!("no states to put into one batch") };
        let cat = |part: &dyn Fn(&Self) -> Option<Tensor>| -> Result<Tensor> {
            match states.iter().map(part).collect::<Option<Vec<_>>>() {
                Some(parts) => Tensor::cat(&parts, 0),
                None => bail!("states at different places of their walks cannot share a batch"),
            }
        };
        Ok(Self {
            hidden: cat(&|state| Some(state.hidden.clone()))?,
            skips: (0..first.skips.len())
                .map(|index| cat(&|state| state.skips.get(index).cloned()))
                .collect::<Result<_>>()?,
            residual: match first.residual {
                Some(_) => Some(cat(&|state| state.residual.clone())?),
                None => None,
            },
        })
    }

    /// The samples from `start` to `start + len` of the batch.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let narrow = |tensor: &Tensor| tensor.narrow(0, start, len);
        Ok(Self {
            hidden: narrow(&self.hidden)?,
            skips: self.skips.iter().map(narrow).collect::<Result<_>>()?,
            residual: self.residual.as_ref().map(narrow).transpose()?,
        })
    }
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
