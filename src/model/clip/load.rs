//! Loads text encoders, tokenizers and CLIP scorers from a model directory.

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
        let folder = self.folder(part)?;
        let config: TextConfig = read_json(&folder.join("config.json"))?;
        ledger::load(&Weights::open(&folder)?, dtype, device, |vb| ClipTextModel::new(&config, vb))
    }

    /// A tokenizer: [`Part::Tokenizer`] or [`Part::Tokenizer2`].
    pub fn tokenizer(&self, part: Part) -> Result<ClipTokenizer, ModelError> {
        Ok(ClipTokenizer::open(&self.folder(part)?)?)
    }

    /// Loads the folder as a scorer: a `CLIPModel` with its tokenizer at the top level.
    pub fn scorer(&self, dtype: DType, device: &Device) -> Result<Scorer, ModelError> {
        let config: ClipConfig = read_json(&self.path().join("config.json"))?;
        let preprocess = self.path().join("preprocessor_config.json");
        Ok(Scorer {
            model: ledger::load(&Weights::open(self.path())?, dtype, device, |vb| {
                ClipModel::new(&config, vb)
            })?,
            preprocess: if preprocess.is_file() {
                read_json(&preprocess)?
            } else {
                ClipPreprocess::default()
            },
            tokenizer: ClipTokenizer::open(self.path())?,
        })
    }
}
