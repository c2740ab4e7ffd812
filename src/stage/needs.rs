//! What a stage will take of memory and disk, computed from configurations before any stage runs, by the functions that the
//! stages themselves use when they refuse work or choose how to do it.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::DType;
use serde::Serialize;

use super::memory::product;
use crate::backend::DeviceClass;
use crate::base::UnitId;
use crate::model::unet::{UNet, UNetConfig};
use crate::model::vae::VaeConfig;
use crate::nn::accumulation_dtype;

/// Text states of a prompt.
const TOKENS: usize = 77;

/// What is known of a model before any stage runs.
#[derive(Clone, Debug)]
pub struct KnownModel {
    /// Its U-Net.
    pub unet: UNetConfig,
    /// Its autoencoder, if it has a readable one.
    pub vae: Option<VaeConfig>,
    /// The type in which it is computed.
    pub dtype: DType,
    /// The type of the U-Net's weights in its file.
    pub stored: DType,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What a stage makes that others read row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRows {
    /// The number of rows; `None` if only the files tell.
    pub rows: Option<u64>,
    /// Height and width of the latents.
    pub latents: (usize, usize),
}

/// What is known of a stage's inputs, by their names, and of the machine.
pub struct Outlook<'a> {
    /// Models.
    pub models: BTreeMap<&'a str, &'a KnownModel>,
    /// Points and latents.
    pub rows: BTreeMap<&'a str, KnownRows>,
    /// The device.
    pub class: DeviceClass,
    /// Bytes of the device's memory that may be used.
    pub available: u64,
}

/// Bytes that a stage takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Weights. Those of a model that is only run are read again at each pass if they do not fit.
    pub weights: u64,
    /// Moments and averages.
    pub optimiser: u64,
    /// Activations of one batch, and gradients.
    pub activations: u64,
    /// Points and rows in memory.
    pub data: u64,
    /// The sum of what must be on the device at the same time.
    pub least: u64,
    /// Files.
    pub disk: u64,
}

impl Needs {
    /// Everything in memory.
    pub fn memory(&self) -> u64 {
        [self.weights, self.optimiser, self.activations, self.data].into_iter().fold(0, u64::saturating_add)
    }

    /// A model that is only run: it can be read from its file at each pass.
    pub(super) fn running(weights: u64, activations: u64) -> Self {
        Self { weights, activations, least: activations, ..Self::default() }
    }
}

impl KnownModel {
    /// The same model without units of about this share of its parameters: the largest that fit into it, because which
    /// ones a selection takes is not known yet.
    pub fn without(&self, share: f64) -> Self {
        let inventory = self.unet.inventory();
        let all = inventory.parameters();
        let wanted = (share * all as f64) as u64;
        let mut units: Vec<(u64, UnitId)> =
            inventory.removable().iter().map(|unit| (unit.parameters, unit.id.clone())).collect();
        units.sort();
        let (mut unet, mut removed) = (self.unet.clone(), BTreeSet::new());
        for (_, unit) in units.into_iter().rev() {
            let more: BTreeSet<UnitId> = removed.iter().cloned().chain([unit]).collect();
            let Ok(smaller) = self.unet.prune(&more) else { continue };
            if all - smaller.inventory().parameters() <= wanted {
                (unet, removed) = (smaller, more);
            }
        }
        let of = |unet: &UNetConfig| UNet::bytes(unet, self.stored);
        let bytes = self.bytes.saturating_sub(of(&self.unet)) + of(&unet);
        Self { unet, bytes, ..self.clone() }
    }
}

impl Outlook<'_> {
    /// The type of activations.
    pub(super) fn activations(&self, dtype: DType) -> DType {
        match self.class {
            DeviceClass::Cpu => accumulation_dtype(dtype),
            DeviceClass::Cuda | DeviceClass::CudaTf32 => dtype,
        }
    }
}

/// Bytes of so many rows of points: noisy latents, their noise and the text states, in f32.
pub(super) fn points(rows: usize, latent: [usize; 3], unet: &UNetConfig) -> u64 {
    of_rows(rows, 2 * latent.iter().product::<usize>(), unet)
}

/// Bytes of so many rows of training data, in f32.
pub(super) fn latents(rows: usize, latent: [usize; 3], unet: &UNetConfig) -> u64 {
    of_rows(rows, latent.iter().product(), unet)
}

/// Bytes of rows of so many numbers and the text states.
fn of_rows(rows: usize, numbers: usize, unet: &UNetConfig) -> u64 {
    product(&[rows, numbers + TOKENS * unet.innermost().cross_attention_dim, 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_parameters_is_left_out() {
        let unet = UNetConfig::parse("{}").expect("diffusers' default");
        let whole = UNet::bytes(&unet, DType::F16);
        let model =
            KnownModel { unet, vae: None, dtype: DType::F32, stored: DType::F16, bytes: whole + 1000 };
        let half = model.without(0.5);
        let kept = half.unet.inventory().parameters() as f64 / model.unet.inventory().parameters() as f64;
        assert!((0.5..0.55).contains(&kept), "{kept}");
        assert_eq!(half.bytes, UNet::bytes(&half.unet, DType::F16) + 1000);
        assert_eq!(model.without(0.0).bytes, model.bytes);
    }
}
