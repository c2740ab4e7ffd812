//! A U-Net: its list of steps and their inputs.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::UNetConfig;
use super::embedding::Embedding;
use super::flatten::flatten;
use crate::model::network::steps::Steps;
use crate::model::network::{Condition, Conditioning, Granularity, Inventory, Step, Unit, WalkState};
use crate::nn::{activation_dtype, image};

impl UNetConfig {
    /// Names, shapes, units and cost, computed without weights.
    pub fn inventory(&self) -> Inventory {
        Inventory::new(flatten(self), self.sample_size, |vb| Embedding::new(self, vb))
            .expect("BUG: a ledger answers every request for a tensor")
    }
}

/// A U-Net of Stable Diffusion, complete or pruned. Cheap to clone: tensors are shared.
#[derive(Clone, Debug)]
pub struct UNet {
    pub(super) config: UNetConfig,
    pub(super) inventory: Inventory,
    pub(super) embedding: Embedding,
    pub(super) steps: Steps,
    pub(super) dtype: DType,
}

impl UNet {
    /// Reads the weights that `config` requires; the names are those of diffusers, `vb` is at the root.
    pub fn new(config: UNetConfig, vb: VarBuilder) -> Result<Self> {
        let inventory = config.inventory();
        let steps = Steps::held(inventory.specs(), &vb)?;
        Self::with(config, inventory, steps, vb)
    }

    /// The same U-Net with little memory: each walk reads the weights of a step when it reaches it, and drops them
    /// afterwards. A tensor missing from `vb` is reported only then.
    pub fn streamed(config: UNetConfig, vb: VarBuilder<'static>) -> Result<Self> {
        let inventory = config.inventory();
        Self::with(config, inventory, Steps::Streamed(vb.clone()), vb)
    }

    fn with(config: UNetConfig, inventory: Inventory, steps: Steps, vb: VarBuilder) -> Result<Self> {
        let dtype = activation_dtype(vb.dtype(), vb.device());
        let embedding = Embedding::new(&config, vb)?;
        Ok(Self { config, inventory, embedding, steps, dtype })
    }

    /// The same U-Net with activations of `dtype` if the device computes in it, regardless of the weights' type.
    pub fn computing_in(self, dtype: DType, device: &Device) -> Self {
        Self { dtype: activation_dtype(dtype, device), ..self }
    }

    /// The same U-Net with units of this granularity.
    pub fn at(self, granularity: Granularity) -> Self {
        Self { inventory: self.inventory.at(granularity), ..self }
    }

    /// Its configuration, including the removed units.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The device that it computes on.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The type of its activations; its weights can have another type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Names, shapes, units and cost.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Its steps in walk order. Fails if the weights of a streamed step cannot be read.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = Result<Cow<'_, Step>>> {
        self.steps.iter(self.inventory.specs())
    }

    /// Some of the steps, by their places in walk order.
    pub fn steps_in(&self, places: Range<usize>) -> impl Iterator<Item = Result<Cow<'_, Step>>> {
        self.steps.iter_in(self.inventory.specs(), places)
    }

    /// The removable units in walk order, each composite before its contents.
    pub fn units(&self) -> &[Unit] {
        self.inventory.units()
    }

    /// The number of parameters.
    pub fn parameters(&self) -> u64 {
        self.inventory.parameters()
    }

    /// Multiply-accumulates of one forward pass of one sample with latents of this size.
    pub fn macs(&self, height: usize, width: usize) -> u64 {
        self.inventory.macs(height, width)
    }

    /// The inputs of the steps besides the latents. `timestep` `[b]` can have any numeric type.
    pub fn condition(&self, timestep: &Tensor, conditioning: &Conditioning) -> Result<Condition> {
        self.embedding.forward(&self.config, timestep, conditioning, self.dtype)
    }

    /// The state before the first step, for latents [b, in_channels, h, w].
    pub fn begin(&self, sample: &Tensor) -> Result<WalkState> {
        let hidden = image::begin(&sample.to_dtype(self.dtype)?)?;
        Ok(WalkState { hidden, skips: Vec::new(), residual: None })
    }

    /// The prediction [b, out_channels, h, w] for latents [b, in_channels, h, w], in the model's dtype.
    pub fn forward(&self, sample: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        self.forward_with_taps(sample, timestep, conditioning, &mut |_, _| {})
    }

    /// Like [`UNet::forward`], but calls `tap` with the path and the output of each step. The paths include those of
    /// the stages (`down_blocks.0`, `mid_block`, `up_blocks.3`: images, see `nn::image`) and of the units (in transformer
    /// blocks: tokens [b, h*w, c]).
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
