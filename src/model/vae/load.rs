//! Loads autoencoders from a model directory.

use candle_core::{DType, Device};
use serde::Deserialize;

use super::config::{KL, TINY};
use super::{Autoencoder, VaeConfig};
use crate::base::files::read_json;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Part, Weights, ledger};

/// Which class a `config.json` is of; files that do not say are of the first one.
#[derive(Deserialize)]
struct Class {
    #[serde(rename = "_class_name")]
    name: Option<String>,
}

impl ModelDirectory {
    /// The autoencoder's configuration.
    pub fn vae_config(&self) -> Result<VaeConfig, ModelError> {
        let path = self.folder(Part::Vae)?.join("config.json");
        let config = match read_json::<Class>(&path)?.name.as_deref() {
            None | Some(KL) => VaeConfig::Kl(read_json(&path)?),
            Some(TINY) => VaeConfig::Tiny(read_json(&path)?),
            Some(other) => {
                let reason =
                    format!("the autoencoder is of the class {other}; only {KL} and {TINY} are supported");
                return Err(ModelError::Unsupported { path, reason });
            }
        };
        config.check().map_err(|reason| ModelError::Unsupported { path, reason })?;
        Ok(config)
    }

    /// Fails if the autoencoder with these weights cannot be built. Returns the tensors that it does not read.
    pub fn check_vae(&self, weights: &Weights) -> Result<Vec<String>, ModelError> {
        let config = self.vae_config()?;
        ledger::check(weights, |vb| Autoencoder::new(&config, vb))
    }

    /// The autoencoder; in f32 if it would overflow in f16.
    pub fn vae(&self, dtype: DType, device: &Device) -> Result<Autoencoder, ModelError> {
        let folder = self.folder(Part::Vae)?;
        let config = self.vae_config()?;
        let dtype = config.compute_dtype(dtype);
        ledger::load(&Weights::open(&folder)?, dtype, device, |vb| Autoencoder::new(&config, vb))
    }
}
