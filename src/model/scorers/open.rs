//! Opens a scorer whatever it is. The names of its tensors tell what it is, so no folder has to say so.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use super::dinov2::{self, DinoV2};
use super::inception::Inception;
use super::reward::{self, BertTokenizer, ImageReward};
use crate::base::files::read_json;
use crate::model::clip::{Scorer, ScorerFolders};
use crate::model::error::ModelError;
use crate::model::files::{Weights, ledger};

/// What a scorer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScorerKind {
    /// Both towers of a CLIP.
    Clip,
    /// DINOv2.
    DinoV2,
    /// Inception v3 with TensorFlow's weights.
    Inception,
    /// ImageReward.
    ImageReward,
}

/// A loaded scorer.
#[derive(Clone, Debug)]
pub enum PictureModel {
    /// Both towers of a CLIP.
    Clip(Scorer),
    /// DINOv2.
    DinoV2(DinoV2),
    /// Inception v3.
    Inception(Inception),
    /// ImageReward, with the tokenizer of its texts.
    ImageReward(ImageReward, BertTokenizer),
}

/// What is known of a scorer whose files fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is.
    pub kind: ScorerKind,
    /// Which one it is.
    pub name: String,
    /// What was assumed for want of a file.
    pub assumed: Option<String>,
}

/// A tensor of each kind that no other has.
const MARKS: [(&str, ScorerKind); 4] = [
    ("Conv2d_1a_3x3.conv.weight", ScorerKind::Inception),
    ("blip.visual_encoder.cls_token", ScorerKind::ImageReward),
    ("embeddings.cls_token", ScorerKind::DinoV2),
    ("dinov2.embeddings.cls_token", ScorerKind::DinoV2),
];

impl ScorerKind {
    /// What it is, after "is".
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Clip => "a CLIP",
            Self::DinoV2 => "a DINOv2",
            Self::Inception => "an Inception v3 with TensorFlow's weights",
            Self::ImageReward => "an ImageReward",
        }
    }

    /// What the folder holds: a CLIP unless its tensors say otherwise.
    fn of(folder: &Path) -> Self {
        let Ok(weights) = Weights::open(folder) else { return Self::Clip };
        MARKS.iter().find(|(name, _)| weights.contains(name)).map_or(Self::Clip, |(_, kind)| *kind)
    }
}

impl PictureModel {
    /// Checks everything about a scorer but the values of its weights.
    pub fn check(folders: &ScorerFolders) -> Result<Known, ModelError> {
        let kind = ScorerKind::of(&folders.model);
        let (name, assumed) = match kind {
            ScorerKind::Clip => folders.check()?,
            ScorerKind::DinoV2 => {
                let (config, weights) = dino(&folders.model)?;
                ledger::check(&weights, |vb| DinoV2::new(&config, dinov2::root(vb)))?;
                (config.name(), None)
            }
            ScorerKind::Inception => {
                let weights = Weights::open(&folders.model)?;
                ledger::check(&weights, |vb| Inception::new(&weights, &vb))?;
                ("Inception v3, pictures of 299 pixels".to_owned(), None)
            }
            ScorerKind::ImageReward => {
                let (sizes, config, weights, _) = reward(folders)?;
                ledger::check(&weights, |vb| ImageReward::new(sizes, &config, &weights, &vb))?;
                (sizes.name(), None)
            }
        };
        Ok(Known { kind, name, assumed })
    }

    /// Loads a scorer.
    pub fn load(folders: &ScorerFolders, dtype: DType, device: &Device) -> Result<Self, ModelError> {
        let kind = ScorerKind::of(&folders.model);
        if kind == ScorerKind::Clip {
            return Ok(Self::Clip(folders.load(dtype, device)?));
        }
        let weights = Weights::open(&folders.model)?;
        weights.check_finite()?;
        Ok(match kind {
            ScorerKind::DinoV2 => {
                let (config, weights) = dino(&folders.model)?;
                let build = |vb| DinoV2::new(&config, dinov2::root(vb));
                Self::DinoV2(ledger::load(&weights, dtype, device, build)?)
            }
            ScorerKind::ImageReward => {
                let (sizes, config, weights, tokenizer) = reward(folders)?;
                let build = |vb| ImageReward::new(sizes, &config, &weights, &vb);
                Self::ImageReward(ledger::load(&weights, dtype, device, build)?, tokenizer)
            }
            ScorerKind::Clip | ScorerKind::Inception => {
                Self::Inception(ledger::load(&weights, dtype, device, |vb| Inception::new(&weights, &vb))?)
            }
        })
    }

    /// What the network reads of some pictures, [n, 3, side, side] on the CPU.
    pub fn prepare(&self, pictures: &[RgbImage]) -> candle_core::Result<Tensor> {
        let prepared = pictures.iter().map(|picture| match self {
            Self::Clip(scorer) => scorer.preprocess.prepare(picture),
            Self::DinoV2(network) => network.prepare(picture),
            Self::Inception(network) => network.prepare(picture),
            Self::ImageReward(network, _) => network.prepare(picture),
        });
        Tensor::stack(&prepared.collect::<candle_core::Result<Vec<_>>>()?, 0)
    }
}

/// Configuration and weights of a DINOv2.
fn dino(folder: &Path) -> Result<(dinov2::Config, Weights), ModelError> {
    let path = folder.join("config.json");
    let config: dinov2::Config = read_json(&path)?;
    config.check().map_err(|reason| unfit(path, reason))?;
    Ok((config, Weights::open(folder)?))
}

/// Everything of an ImageReward but the values of its weights.
fn reward(
    folders: &ScorerFolders,
) -> Result<(reward::Sizes, reward::Config, Weights, BertTokenizer), ModelError> {
    let folder = &folders.model;
    let path = folder.join(reward::CONFIG);
    let config: reward::Config = read_json(&path)?;
    config.check().map_err(|reason| unfit(path.clone(), reason))?;
    let weights = Weights::open(folder)?;
    let sizes = reward::Sizes::of(&weights).map_err(|reason| unfit(weights.path().to_owned(), reason))?;
    let processor = folders.processor.as_ref().unwrap_or(folder);
    let tokenizer = BertTokenizer::open(processor)?;
    tokenizer.check_fits(config.vocab_size).map_err(|reason| unfit(processor.clone(), reason))?;
    Ok((sizes, config, weights, tokenizer))
}

fn unfit(path: PathBuf, reason: String) -> ModelError {
    ModelError::Scorer { path, reason, fix: "compare the file with the one of the original model".to_owned() }
}
