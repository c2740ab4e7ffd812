//! Loads autoencoders from a model directory.

use candle_core::{DType, Device};

use super::{AutoencoderKl, VaeConfig};
use crate::base::files::read_json;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Part, Weights, ledger};

impl ModelDirectory {
    /// The autoencoder's configuration.
    pub fn vae_config(&self) -> Result<VaeConfig, ModelError> {
        let path = self.folder(Part::Vae)?.join("config.json");
        let config: VaeConfig = read_json(&path)?;
        config.check().map_err(|reason| ModelError::Unsupported { path, reason })?;
        Ok(config)
    }

    /// Fails if the autoencoder with these weights cannot be built. Returns the tensors that it does not read.
    pub fn check_vae(&self, weights: &Weights) -> Result<Vec<String>, ModelError> {
        let config = self.vae_config()?;
        ledger::check(weights, |vb| AutoencoderKl::new(&config, vb))
    }

    /// The autoencoder; in f32 if it would overflow in f16.
    pub fn vae(&self, dtype: DType, device: &Device) -> Result<AutoencoderKl, ModelError> {
        let folder = self.folder(Part::Vae)?;
        let config = self.vae_config()?;
        let dtype = config.compute_dtype(dtype);
        ledger::load(&Weights::open(&folder)?, dtype, device, |vb| AutoencoderKl::new(&config, vb))
    }
}
