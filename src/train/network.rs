//! A U-Net that is trained.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

use crate::model::unet::{UNet, UNetConfig};
use crate::model::{ModelDirectory, ModelError, Weights};
use crate::nn;
use crate::nn::copies::Copies;

/// A U-Net with its variables.
pub struct Trainable {
    unet: UNet,
    /// All weights by name, f32.
    weights: BTreeMap<String, Var>,
    /// The names of the weights that are trained.
    trained: Vec<String>,
    /// Of the weights of products, for activations in another type.
    _copies: Copies,
}

impl Trainable {
    /// A U-Net on `weights`, in which those that are `frozen` get no gradients. Activations have the type `dtype`.
    pub fn new(
        config: &UNetConfig,
        weights: BTreeMap<String, Var>,
        frozen: impl Fn(&str) -> bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let tensor = |(name, weight): (&String, &Var)| {
            let frozen = frozen(name);
            (name.clone(), if frozen { weight.as_detached_tensor() } else { weight.as_tensor().clone() })
        };
        let tensors: HashMap<String, Tensor> = weights.iter().map(tensor).collect();
        let mut copies = Copies::default();
        if nn::activation_dtype(dtype, device) == DType::BF16 {
            for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.rank() == 2) {
                copies.add(&weights[name], tensor)?;
            }
        }
        let unet = UNet::new(config.clone(), VarBuilder::from_tensors(tensors, DType::F32, device))?;
        let unet = unet.computing_in(dtype, device);
        let trained = weights.keys().filter(|name| !frozen(name)).cloned().collect();
        Ok(Self { unet, weights, trained, _copies: copies })
    }

    /// Reads the weights that `config` requires.
    pub fn read(
        config: &UNetConfig,
        weights: &Weights,
        frozen: impl Fn(&str) -> bool,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let mut variables = BTreeMap::new();
        for entry in config.inventory().tensors() {
            weights.check(std::slice::from_ref(entry))?;
            let variable = Var::from_tensor(&weights.tensor(&entry.name, DType::F32, device)?)?;
            variables.insert(entry.name.clone(), variable);
        }
        Ok(Self::new(config, variables, frozen, dtype, device)?)
    }

    /// The U-Net of a model directory.
    pub fn open(
        directory: &ModelDirectory,
        frozen: impl Fn(&str) -> bool,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        Self::read(&directory.unet_config()?, &directory.unet_weights()?, frozen, dtype, device)
    }

    /// The U-Net. It sees every change of the weights.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// All weights by name.
    pub fn weights(&self) -> &BTreeMap<String, Var> {
        &self.weights
    }

    /// The weights that are trained, in the order of their names.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|name| (name.as_str(), &self.weights[name]))
    }
}
