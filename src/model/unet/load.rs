//! U-Nets from files.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Var};
use candle_nn::VarBuilder;

use super::config::UNetConfig;
use super::network::UNet;
use crate::backend::memory;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Part, Weights};

impl ModelDirectory {
    /// The U-Net's configuration.
    pub fn unet_config(&self) -> Result<UNetConfig, ModelError> {
        Ok(UNetConfig::read(&self.folder(Part::UNet)?.join("config.json"))?)
    }

    /// The U-Net's weights.
    pub fn unet_weights(&self) -> Result<Weights, ModelError> {
        Ok(Weights::open(&self.folder(Part::UNet)?)?)
    }

    /// The U-Net, to compute with: held in memory if it fits well, else streamed.
    pub fn unet(&self, dtype: DType, device: &Device) -> Result<UNet, ModelError> {
        unet(self.unet_config()?, &self.unet_weights()?, dtype, device)
    }

    /// The U-Net over variables in f32, to train, with activations of `dtype`; the variables by the names of their
    /// tensors.
    pub fn unet_trainable(
        &self,
        dtype: DType,
        device: &Device,
    ) -> Result<(UNet, BTreeMap<String, Var>), ModelError> {
        unet_trainable(self.unet_config()?, &self.unet_weights()?, dtype, device)
    }
}

/// A U-Net to compute with: held in memory if it fits well, else streamed.
pub fn unet(
    config: UNetConfig,
    weights: &Weights,
    dtype: DType,
    device: &Device,
) -> Result<UNet, ModelError> {
    let inventory = config.inventory();
    weights.check(inventory.tensors())?;
    let bytes = inventory.parameters() * dtype.size_in_bytes() as u64;
    let build = if bytes > memory::budget(device) { UNet::streamed } else { UNet::new };
    Ok(build(config, weights.builder(dtype, device))?)
}

/// A U-Net over variables in f32 with activations of `dtype`; the variables by the names of their tensors.
pub fn unet_trainable(
    config: UNetConfig,
    weights: &Weights,
    dtype: DType,
    device: &Device,
) -> Result<(UNet, BTreeMap<String, Var>), ModelError> {
    let mut variables = BTreeMap::new();
    for entry in config.inventory().tensors() {
        weights.check(std::slice::from_ref(entry))?;
        let variable = Var::from_tensor(&weights.tensor(&entry.name, DType::F32, device)?)?;
        variables.insert(entry.name.clone(), variable);
    }
    let tensors: HashMap<_, _> =
        variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone())).collect();
    let unet = UNet::new(config, VarBuilder::from_tensors(tensors, DType::F32, device))?;
    Ok((unet.computing_in(dtype, device), variables))
}
