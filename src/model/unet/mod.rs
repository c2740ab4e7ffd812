//! The U-Net as one list of steps.
//!
//! A configuration is flattened once (`spec`) into named steps over one small [`State`]. The forward pass,
//! removing units, scoring many variants at once, feature taps, counting: each is a walk over that
//! list, and there is no other forward pass.

mod assembly;
mod config;
mod embedding;
mod inventory;
mod json;
mod original;
mod prune;
mod raw;
mod spec;
mod step;
mod transformer;
mod unit;
mod walk;

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;

pub use assembly::{Assembly, Layers, Origin};
pub use config::{ConfigError, Level, Mid, TextTime, UNetConfig};
pub use embedding::{Condition, Conditioning};
pub use inventory::Inventory;
pub use json::CLASS;
pub use prune::PruneError;
pub use step::Step;
pub use unit::{Unit, UnitKind};
pub use walk::State;

use crate::nn::activation_dtype;
use embedding::Embedding;

/// A U-Net of Stable Diffusion, whole or pruned. Cheap to clone: tensors are shared.
#[derive(Clone, Debug)]
pub struct UNet {
    config: UNetConfig,
    inventory: Inventory,
    embedding: Embedding,
    steps: Vec<Step>,
    dtype: DType,
}

impl UNet {
    /// Reads the weights that `config` asks for; names are those of diffusers, `vb` is at the root.
    pub fn new(config: UNetConfig, vb: VarBuilder) -> Result<Self> {
        let inventory = config.inventory();
        let embedding = Embedding::new(&config, vb.clone())?;
        let steps =
            inventory.specs().iter().map(|spec| Step::new(spec, &config, &vb)).collect::<Result<_>>()?;
        Ok(Self { config, inventory, embedding, steps, dtype: activation_dtype(vb.dtype(), vb.device()) })
    }

    /// The same, with activations of `dtype` where the device computes in it, whatever the type of the weights.
    pub fn computing_in(self, dtype: DType, device: &Device) -> Self {
        Self { dtype: activation_dtype(dtype, device), ..self }
    }

    /// Its configuration, with what was removed.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The type of what flows through it; its weights may be of another.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Names, shapes, units and cost.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Its steps in walk order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What can be removed, in walk order, each Transformer2D before its blocks.
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
}
