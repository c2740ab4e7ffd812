//! Loads text encoders and tokenizers from a model directory.

use candle_core::{DType, Device};

use super::{ClipTextModel, ClipTokenizer, TextConfig};
use crate::base::files::read_json;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Part, Weights, ledger};

impl ModelDirectory {
    /// A text encoder: [`Part::TextEncoder`] or [`Part::TextEncoder2`].
    pub fn text_encoder(
        &self,
        part: Part,
        dtype: DType,
        device: &Device,
    ) -> Result<ClipTextModel, ModelError> {
        let config = self.text_config(part)?;
        ledger::load(&Weights::open(&self.folder(part)?)?, dtype, device, |vb| {
            ClipTextModel::new(&config, vb)
        })
    }

    /// The configuration of a text encoder.
    pub fn text_config(&self, part: Part) -> Result<TextConfig, ModelError> {
        let path = self.folder(part)?.join("config.json");
        TextConfig::parse(&read_json(&path)?).map_err(|reason| ModelError::Unsupported { path, reason })
    }

    /// Fails if the text encoder with these weights cannot be built. Returns the tensors that it does not read.
    pub fn check_text_encoder(&self, part: Part, weights: &Weights) -> Result<Vec<String>, ModelError> {
        let config = self.text_config(part)?;
        let unread = ledger::check(weights, |vb| ClipTextModel::new(&config, vb))?;
        // Older files list the positions, which are 0, 1, 2, ….
        Ok(unread.into_iter().filter(|name| !name.ends_with("embeddings.position_ids")).collect())
    }

    /// A tokenizer: [`Part::Tokenizer`] or [`Part::Tokenizer2`].
    pub fn tokenizer(&self, part: Part) -> Result<ClipTokenizer, ModelError> {
        Ok(ClipTokenizer::open(&self.folder(part)?)?)
    }
}
