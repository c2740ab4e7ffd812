//! The CLIP model that scores pictures: which files of its folder are read, and whether they fit each other. All of that
//! is known from headers and configurations, before a picture is drawn.

use std::path::Path;

use candle_core::{DType, Device};

use super::{ClipConfig, ClipModel, ClipPreprocess, ClipTokenizer, tokenizer};
use crate::base::files::read_json;
use crate::model::error::ModelError;
use crate::model::files::{ModelDirectory, Weights, ledger};

const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

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

/// A scorer whose files were read and fit each other, except for the values of its weights.
struct Checked {
    config: ClipConfig,
    weights: Weights,
    preprocess: ClipPreprocess,
    tokenizer: ClipTokenizer,
}

impl ModelDirectory {
    /// Loads the folder as a scorer: a `CLIPModel` with its tokenizer at the top level.
    pub fn scorer(&self, dtype: DType, device: &Device) -> Result<Scorer, ModelError> {
        let Checked { config, weights, preprocess, tokenizer } = Checked::open(self.path())?;
        weights.check_finite()?;
        let model = ledger::load(&weights, dtype, device, |vb| ClipModel::new(&config, vb))?;
        Ok(Scorer { model, preprocess, tokenizer })
    }

    /// Checks everything about the scorer but the values of its weights.
    pub fn check_scorer(&self) -> Result<(), ModelError> {
        let Checked { config, weights, .. } = Checked::open(self.path())?;
        ledger::check(&weights, |vb| ClipModel::new(&config, vb)).map(drop)
    }

    /// The names of the files that [`ModelDirectory::scorer`] reads.
    pub fn scorer_files(&self) -> Result<Vec<String>, ModelError> {
        let mut names = Weights::files(self.path())?;
        names.extend(tokenizer::files(self.path()));
        let others = [CONFIG, PREPROCESSOR].into_iter().filter(|name| self.path().join(name).is_file());
        names.extend(others.map(str::to_owned));
        Ok(names)
    }
}

impl Checked {
    fn open(folder: &Path) -> Result<Self, ModelError> {
        let unfit = |name: &str, reason: String, fix: String| ModelError::Scorer {
            path: folder.join(name),
            reason,
            fix,
        };
        let again = || "compare the file with the one of the original model".to_owned();
        let config: ClipConfig = read_json(&folder.join(CONFIG))?;
        config.check().map_err(|reason| unfit(CONFIG, reason, again()))?;
        let side = config.vision_config.image_size;
        let preprocess: ClipPreprocess = match folder.join(PREPROCESSOR) {
            path if path.is_file() => read_json(&path)?,
            _ => ClipPreprocess::of_side(side),
        };
        preprocess.check(side).map_err(|reason| unfit(PREPROCESSOR, reason, again()))?;
        let tokenizer = ClipTokenizer::open(folder)?;
        let text = &config.text_config;
        tokenizer.check_fits(text.max_position_embeddings, text.vocab_size).map_err(|reason| {
            let fix = "correct it, or copy the tokenizer from the original model again".to_owned();
            unfit("tokenizer_config.json", reason, fix)
        })?;
        Ok(Self { config, weights: Weights::open(folder)?, preprocess, tokenizer })
    }
}
