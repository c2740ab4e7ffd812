//! The CLIP model that scores pictures: which files of its folders are read, and whether they fit each other. All of that
//! is known from headers and configurations, before a picture is drawn.
//!
//! Released scorers often lack files: checkpoints of OpenCLIP have neither a tokenizer nor transformers' configuration and
//! names. A second folder can provide what is missing.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::Value;

use super::original::{OF_OPEN_CLIP, open_clip_names};
use super::{ClipConfig, ClipModel, ClipPreprocess, ClipTokenizer, open_clip, tokenizer};
use crate::base::files::read_json;
use crate::model::error::ModelError;
use crate::model::files::contents::OPEN_CLIP_WEIGHTS;
use crate::model::files::{Weights, WeightsError, ledger, original};

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

/// The folders of a scorer.
#[derive(Clone, Debug)]
pub struct ScorerFolders {
    /// The folder of the weights: a `CLIPModel`, or a checkpoint of OpenCLIP.
    pub model: PathBuf,
    /// The folder of the tokenizer and of the preprocessor, if they are not beside the weights.
    pub processor: Option<PathBuf>,
}

/// A scorer whose files were read and fit each other, except for the values of its weights.
struct Checked {
    config: ClipConfig,
    weights: Weights,
    preprocess: ClipPreprocess,
    tokenizer: ClipTokenizer,
    /// What was assumed for want of a file.
    assumed: Option<String>,
}

impl ScorerFolders {
    /// A scorer with everything in one folder.
    pub fn one(folder: &Path) -> Self {
        Self { model: folder.to_owned(), processor: None }
    }

    /// Loads the scorer.
    pub fn load(&self, dtype: DType, device: &Device) -> Result<Scorer, ModelError> {
        let Checked { config, weights, preprocess, tokenizer, .. } = Checked::open(self)?;
        weights.check_finite()?;
        let model = ledger::load(&weights, dtype, device, |vb| ClipModel::new(&config, vb))?;
        Ok(Scorer { model, preprocess, tokenizer })
    }

    /// Checks everything about the scorer but the values of its weights. Returns which CLIP it is, and what was assumed
    /// for want of a file.
    pub fn check(&self) -> Result<(String, Option<String>), ModelError> {
        let Checked { config, weights, assumed, .. } = Checked::open(self)?;
        ledger::check(&weights, |vb| ClipModel::new(&config, vb))?;
        Ok((config.name(), assumed))
    }

    fn processor(&self) -> &Path {
        self.processor.as_deref().unwrap_or(&self.model)
    }
}

/// The names of the files that are read in a folder with the weights of a scorer.
pub fn model_files(folder: &Path) -> Result<Vec<String>, ModelError> {
    let mut names = match weights_file(folder) {
        Some(_) => vec![OPEN_CLIP_WEIGHTS.to_owned()],
        None => Weights::files(folder)?,
    };
    names.extend(processor_files(folder));
    Ok(names)
}

/// The names of the files that are read in a folder that only has the processor of a scorer.
pub fn processor_files(folder: &Path) -> Vec<String> {
    let mut names = tokenizer::files(folder);
    let others = [CONFIG, PREPROCESSOR, open_clip::CONFIG].into_iter();
    names.extend(others.filter(|name| folder.join(name).is_file()).map(str::to_owned));
    names
}

/// The file of OpenCLIP's weights, in a folder that has none under the name of transformers.
fn weights_file(folder: &Path) -> Option<PathBuf> {
    let file = folder.join(OPEN_CLIP_WEIGHTS);
    (file.is_file() && Weights::files(folder).is_err()).then_some(file)
}

impl Checked {
    fn open(folders: &ScorerFolders) -> Result<Self, ModelError> {
        let model = folders.model.as_path();
        let (config, stated) = config(folders)?;
        let side = config.vision_config.image_size;
        let candidates = [folders.processor(), model].map(|folder| folder.join(PREPROCESSOR));
        let (mut assumed, mut place) = (None, model.join(open_clip::CONFIG));
        let preprocess: ClipPreprocess = match (candidates.into_iter().find(|path| path.is_file()), stated) {
            (Some(path), _) => {
                place.clone_from(&path);
                read_json(&path)?
            }
            (None, Some(stated)) => stated,
            (None, None) => {
                assumed = Some(format!(
                    "the scorer has no {PREPROCESSOR}: pictures are resized to the {side} pixels of its \
                     configuration, with the colours of OpenAI's CLIP"
                ));
                ClipPreprocess::of_side(side)
            }
        };
        preprocess.check(side).map_err(|reason| unfit(place, reason, AGAIN))?;
        let tokenizer = ClipTokenizer::open(folders.processor())?;
        let text = &config.text_config;
        tokenizer.check_fits(text.max_position_embeddings, text.vocab_size).map_err(|reason| {
            let place = folders.processor().join("tokenizer_config.json");
            unfit(place, reason, "correct it, or copy the tokenizer from the original model again")
        })?;
        let weights = weights(model, &config)?;
        Ok(Self { config, weights, preprocess, tokenizer, assumed })
    }
}

const AGAIN: &str = "compare the file with the one of the original model";

/// The configuration of the model, and the preparation of pictures that OpenCLIP's states.
fn config(folders: &ScorerFolders) -> Result<(ClipConfig, Option<ClipPreprocess>), ModelError> {
    let path = folders.model.join(open_clip::CONFIG);
    if !folders.model.join(CONFIG).is_file() && path.is_file() {
        let file: Value = read_json(&path)?;
        let (config, preprocess) = open_clip::parse(&file).map_err(|reason| unfit(path, reason, AGAIN))?;
        return Ok((config, Some(preprocess)));
    }
    let path = folders.model.join(CONFIG);
    let config: ClipConfig = read_json(&path)?;
    config.check().map_err(|reason| unfit(path, reason, AGAIN))?;
    Ok((config, None))
}

/// The weights of a scorer, with the names of transformers.
fn weights(folder: &Path, config: &ClipConfig) -> Result<Weights, WeightsError> {
    let file = weights_file(folder);
    let weights = Weights::open(file.as_deref().unwrap_or(folder))?;
    Ok(match weights.contains(OF_OPEN_CLIP) {
        true => original::read(&weights, "", &open_clip_names(config)),
        false => weights,
    })
}

fn unfit(path: PathBuf, reason: String, fix: &str) -> ModelError {
    ModelError::Scorer { path, reason, fix: fix.to_owned() }
}
