//! Loads U-Nets. Only this module decides how the weights of a file become a [`UNet`].

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
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
        let bytes = Self::bytes(&config, dtype);
        Self::load_held(config, weights, dtype, device, bytes <= memory::budget(device))
    }

    /// Bytes of the weights of a U-Net that is held in memory.
    pub fn bytes(config: &UNetConfig, dtype: DType) -> u64 {
        config.inventory().parameters() * dtype.size_in_bytes() as u64
    }

    /// Loads a U-Net for inference; its weights are `held` in memory or streamed.
    pub fn load_held(
        config: UNetConfig,
        weights: &Weights,
        dtype: DType,
        device: &Device,
        held: bool,
    ) -> Result<Self, ModelError> {
        weights.check(config.inventory().tensors())?;
        let builder = weights.builder(dtype, device);
        Ok(if held { Self::new(config, builder)? } else { Self::streamed(config, builder)? })
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
}
