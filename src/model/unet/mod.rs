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
mod probe;
mod prune;
mod raw;
mod spec;
mod step;
mod transformer;
mod unit;
mod walk;

use std::borrow::Cow;
use std::fmt;

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;

pub use assembly::{Assembly, KeptDepths, Layers, Origin};
pub use config::{ConfigError, Level, Mid, TextTime, UNetConfig};
pub use embedding::{Condition, Conditioning};
pub use inventory::Inventory;
pub use json::CLASS;
pub use probe::Probe;
pub use prune::PruneError;
pub use step::{Shared, Step};
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
    steps: Steps,
    dtype: DType,
}

/// Where a walk finds its steps.
#[derive(Clone)]
enum Steps {
    /// In memory.
    Held(Vec<Step>),
    /// In a file, from which each is read when the walk arrives at it.
    Streamed(VarBuilder<'static>),
}

impl UNet {
    /// Reads the weights that `config` asks for; names are those of diffusers, `vb` is at the root.
    pub fn new(config: UNetConfig, vb: VarBuilder) -> Result<Self> {
        let inventory = config.inventory();
        let steps =
            inventory.specs().iter().map(|spec| Step::new(spec, &config, &vb)).collect::<Result<_>>()?;
        Self::with(config, inventory, Steps::Held(steps), vb)
    }

    /// The same U-Net in little memory: each walk reads the weights of a step when it arrives at it, and lets go of
    /// them when it goes on. What `vb` lacks is found only then.
    pub fn streamed(config: UNetConfig, vb: VarBuilder<'static>) -> Result<Self> {
        let inventory = config.inventory();
        Self::with(config, inventory, Steps::Streamed(vb.clone()), vb)
    }

    fn with(config: UNetConfig, inventory: Inventory, steps: Steps, vb: VarBuilder) -> Result<Self> {
        let dtype = activation_dtype(vb.dtype(), vb.device());
        let embedding = Embedding::new(&config, vb)?;
        Ok(Self { config, inventory, embedding, steps, dtype })
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

    /// Its steps in walk order. Fails where the weights of a streamed one cannot be read.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = Result<Cow<'_, Step>>> {
        self.inventory.specs().iter().enumerate().map(|(index, spec)| match &self.steps {
            Steps::Held(steps) => Ok(Cow::Borrowed(&steps[index])),
            Steps::Streamed(vb) => Ok(Cow::Owned(Step::new(spec, &self.config, vb)?)),
        })
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

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(steps) => f.debug_tuple("Held").field(steps).finish(),
            Self::Streamed(_) => f.write_str("Streamed"),
        }
    }
}
