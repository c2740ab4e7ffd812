//! Loads U-Nets. Only this module decides how the weights of a file become a [`UNet`].

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use super::config::UNetConfig;
use super::network::UNet;
use crate::backend::memory;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Part, Weights};

impl UNet {
    /// Loads a U-Net for inference. Its weights are held in memory if they fit comfortably, otherwise they are
    /// streamed.
    pub fn load(
        config: UNetConfig,
        weights: &Weights,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let inventory = config.inventory();
        weights.check(inventory.tensors())?;
        let bytes = inventory.parameters() * dtype.size_in_bytes() as u64;
        let build = if bytes > memory::budget(device) { Self::streamed } else { Self::new };
        Ok(build(config, weights.builder(dtype, device))?)
    }

    /// Loads a U-Net for training: its weights are f32 variables, its activations have the type `dtype`. The variables
    /// are returned with the names of their tensors.
    pub fn load_trainable(
        config: UNetConfig,
        weights: &Weights,
        dtype: DType,
        device: &Device,
    ) -> Result<(Self, BTreeMap<String, Var>), ModelError> {
        let mut variables = BTreeMap::new();
        for entry in config.inventory().tensors() {
            weights.check(std::slice::from_ref(entry))?;
            let variable = Var::from_tensor(&weights.tensor(&entry.name, DType::F32, device)?)?;
            variables.insert(entry.name.clone(), variable);
        }
        let tensors: HashMap<_, _> =
            variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone())).collect();
        let unet = Self::new(config, VarBuilder::from_tensors(tensors, DType::F32, device))?;
        Ok((unet.computing_in(dtype, device), variables))
    }

    /// The same U-Net on other weights, which are f32. They are shared, not copied, where they are on the device; of tensors
    /// that are no variables, no graph is kept.
    pub fn on_weights(
        &self,
        weights: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let moved = weights.iter().map(|(name, weight)| Ok((name.clone(), weight.to_device(device)?)));
        let tensors = moved.collect::<candle_core::Result<HashMap<_, _>>>()?;
        let unet = Self::new(self.config.clone(), VarBuilder::from_tensors(tensors, DType::F32, device))?;
        Ok(unet.computing_in(self.dtype, device))
    }
}

impl ModelDirectory {
    /// The U-Net's configuration.
    pub fn unet_config(&self) -> Result<UNetConfig, ModelError> {
        let path = self.folder(Part::UNet)?.join("config.json");
        UNetConfig::read(&path).map_err(|error| ModelError::UNet { path, error })
    }

    /// The U-Net's weights.
    pub fn unet_weights(&self) -> Result<Weights, ModelError> {
        Ok(Weights::open(&self.folder(Part::UNet)?)?)
    }

    /// Loads the U-Net with [`UNet::load`].
    pub fn unet(&self, dtype: DType, device: &Device) -> Result<UNet, ModelError> {
        UNet::load(self.unet_config()?, &self.unet_weights()?, dtype, device)
    }

    /// Loads the U-Net and its variables with [`UNet::load_trainable`].
    pub fn unet_trainable(
        &self,
        dtype: DType,
        device: &Device,
    ) -> Result<(UNet, BTreeMap<String, Var>), ModelError> {
        UNet::load_trainable(self.unet_config()?, &self.unet_weights()?, dtype, device)
    }
}
