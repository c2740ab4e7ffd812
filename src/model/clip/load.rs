//! Loads text encoders, tokenizers and CLIP scorers from a model directory.

use std::path::Path;

use candle_core::{DType, Device};

use super::{ClipConfig, ClipModel, ClipPreprocess, ClipTextModel, ClipTokenizer, TextConfig};
use crate::base::files::read_json;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Part, Weights, ledger};

/// A CLIP model that scores pictures against prompts.
#[derive(Clone, Debug)]
pub struct Scorer {
    /// Both towers.
    pub model: ClipModel,
    /// Preprocessing of pictures.
    pub preprocess: ClipPreprocess,
    /// Tokenizer of the prompts.
    pub tokenizer: ClipTokenizer,
}

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

    /// Loads the folder as a scorer: a `CLIPModel` with its tokenizer at the top level.
    pub fn scorer(&self, dtype: DType, device: &Device) -> Result<Scorer, ModelError> {
        let path = self.path().join("config.json");
        let config: ClipConfig = read_json(&path)?;
        let refuse = |path: &Path, reason| Err(ModelError::Unsupported { path: path.to_owned(), reason });
        let ClipConfig {
            text_config: TextConfig { max_position_embeddings: longest, vocab_size, .. }, ..
        } = config;
        let tokenizer = ClipTokenizer::open(self.path())?;
        if let Err(reason) = tokenizer.check_fits(longest, vocab_size) {
            return refuse(&self.path().join("tokenizer_config.json"), reason);
        }
        let side = config.vision_config.image_size;
        if let Err(reason) = config.check() {
            return refuse(&path, reason);
        }
        let file = self.path().join("preprocessor_config.json");
        let preprocess: ClipPreprocess =
            if file.is_file() { read_json(&file)? } else { ClipPreprocess::of_side(side) };
        if let Err(reason) = preprocess.check(side) {
            return refuse(&file, reason);
        }
        let weights = Weights::open(self.path())?;
        weights.check_finite()?;
        let model = ledger::load(&weights, dtype, device, |vb| ClipModel::new(&config, vb))?;
        Ok(Scorer { model, preprocess, tokenizer })
    }
}
