//! A model as a folder: a diffusers pipeline with its parts, a bare U-Net, or a scorer.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Var};
use candle_nn::VarBuilder;
use miette::Diagnostic;
use thiserror::Error;

use super::clip::{ClipConfig, ClipModel, ClipPreprocess, ClipTextModel, TextConfig};
use super::ledger;
use super::tokenizer::{ClipTokenizer, TokenizerError};
use super::unet::{ConfigError, UNet, UNetConfig};
use super::vae::{AutoencoderKl, VaeConfig};
use super::weights::{Weights, WeightsError};
use crate::backend::memory;
use crate::base::files::read_json;

/// A model that cannot be loaded.
#[derive(Debug, Error, Diagnostic)]
pub enum ModelError {
    /// The folder is not there, or no model.
    #[error("{} is no model folder", path.display())]
    #[diagnostic(
        code(model::no_model),
        help(
            "expected a diffusers pipeline (with unet/config.json), or the folder of one model with its config.json"
        )
    )]
    NoModel {
        /// The path given.
        path: PathBuf,
    },
    /// No part has weights of the variant that was asked for.
    #[error("no part of the model has the variant `{variant}`")]
    #[diagnostic(code(model::no_variant), help("{}", variant_help(found)))]
    NoVariant {
        /// What was asked for.
        variant: String,
        /// The variants that parts have.
        found: Vec<String>,
    },
    /// A part that is needed is not in the folder.
    #[error("{} has no `{part}`, which {purpose}", path.display())]
    #[diagnostic(
        code(model::missing_part),
        help("put the folder `{part}` of the model it came from beside the others")
    )]
    MissingPart {
        /// The model folder.
        path: PathBuf,
        /// The part's folder.
        part: &'static str,
        /// Who needs it.
        purpose: &'static str,
    },
    /// A configuration that is not what diffusers or transformers write.
    #[error("cannot read a part's configuration: {source}")]
    #[diagnostic(code(model::config), help("compare the file with the model it came from"))]
    Config {
        /// Which file and why.
        #[from]
        source: io::Error,
    },
    /// The U-Net's configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    UNet(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// A file that is no model.
    #[error("{} is no checkpoint of Stable Diffusion: {reason}", path.display())]
    #[diagnostic(
        code(model::checkpoint),
        help(
            "a single file must be a safetensors checkpoint in the original layout (`model.diffusion_model.…`), with \
             the U-Net of SD 1.x, SD 2.x or SDXL; else convert it to a diffusers folder"
        )
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is not as expected.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    #[diagnostic(code(model::write))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration of a model that we cannot build.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(code(model::unsupported), help("Stable Diffusion 1.x, 2.x and SDXL are supported"))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it has and what was needed.
        reason: String,
    },
    /// The tokenizer.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Memory or device trouble.
    #[error("cannot build the model: {0}")]
    #[diagnostic(code(model::build), help("if memory is short, use a smaller dtype or another device"))]
    Tensor(#[from] candle_core::Error),
}

fn variant_help(found: &[String]) -> String {
    match found {
        [] => "it has only weights without a variant: leave `variant` out".to_owned(),
        _ => format!("there are {}; without `variant`, full precision is taken", found.join(", ")),
    }
}

/// A part of a diffusers pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The U-Net.
    UNet,
    /// The autoencoder.
    Vae,
    /// The first text encoder.
    TextEncoder,
    /// SDXL's second text encoder.
    TextEncoder2,
    /// The first tokenizer.
    Tokenizer,
    /// SDXL's second tokenizer.
    Tokenizer2,
    /// The noise schedule.
    Scheduler,
}

impl Part {
    /// All parts, in the order of a pipeline.
    pub const ALL: [Self; 7] = [
        Self::Tokenizer,
        Self::Tokenizer2,
        Self::TextEncoder,
        Self::TextEncoder2,
        Self::UNet,
        Self::Vae,
        Self::Scheduler,
    ];

    /// Its folder in a pipeline.
    pub fn folder(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::Tokenizer => "tokenizer",
            Self::Tokenizer2 => "tokenizer_2",
            Self::Scheduler => "scheduler",
        }
    }

    fn purpose(self) -> &'static str {
        match self {
            Self::UNet => "every stage on a model needs",
            Self::Vae => "evaluate and generate need to draw, and calibrate and distill to read pictures",
            Self::TextEncoder | Self::TextEncoder2 | Self::Tokenizer | Self::Tokenizer2 => {
                "calibrate, distill, evaluate and generate need to read prompts"
            }
            Self::Scheduler => {
                "calibrate, score by task loss, distill, evaluate and generate need for their noise"
            }
        }
    }
}

/// A model folder: a diffusers pipeline, or a bare U-Net or scorer with its `config.json` at the top.
#[derive(Clone, Debug)]
pub struct ModelDirectory {
    path: PathBuf,
    /// Whether the U-Net lies at the top.
    bare: bool,
}

/// What scores pictures against prompts.
#[derive(Clone, Debug)]
pub struct Scorer {
    /// Both towers.
    pub model: ClipModel,
    /// How it wants its pictures.
    pub preprocess: ClipPreprocess,
    /// How it reads its prompts.
    pub tokenizer: ClipTokenizer,
}

impl ModelDirectory {
    /// Looks what kind of folder it is; reads no weights.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let pipeline = path.join("model_index.json").is_file() || path.join("unet/config.json").is_file();
        if !pipeline && !path.join("config.json").is_file() {
            return Err(ModelError::NoModel { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), bare: !pipeline })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the part is there.
    pub fn has(&self, part: Part) -> bool {
        self.folder(part).is_ok()
    }

    /// The folder of a part; the error says who needs it.
    pub fn folder(&self, part: Part) -> Result<PathBuf, ModelError> {
        let folder = match (self.bare, part) {
            (true, Part::UNet) => self.path.clone(),
            _ => self.path.join(part.folder()),
        };
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(ModelError::MissingPart { path: self.path.clone(), part: part.folder(), purpose: part.purpose() })
    }

    /// The U-Net's configuration.
    pub fn unet_config(&self) -> Result<UNetConfig, ModelError> {
        Ok(UNetConfig::read(&self.folder(Part::UNet)?.join("config.json"))?)
    }

    /// The U-Net's weights.
    pub fn unet_weights(&self) -> Result<Weights, ModelError> {
        Ok(Weights::open(&self.folder(Part::UNet)?)?)
    }

    /// The U-Net, to compute with: held in memory if it fits well, else streamed.
    pub fn unet(&self, dtype: DType, device: &Device) -> Result<UNet, ModelError> {
        unet(self.unet_config()?, &self.unet_weights()?, dtype, device)
    }

    /// The U-Net over variables in f32, to train, with activations of `dtype`; the variables by the names of their
    /// tensors.
    pub fn unet_trainable(
        &self,
        dtype: DType,
        device: &Device,
    ) -> Result<(UNet, BTreeMap<String, Var>), ModelError> {
        unet_trainable(self.unet_config()?, &self.unet_weights()?, dtype, device)
    }

    /// The autoencoder's configuration.
    pub fn vae_config(&self) -> Result<VaeConfig, ModelError> {
        let path = self.folder(Part::Vae)?.join("config.json");
        let config: VaeConfig = read_json(&path)?;
        config.check().map_err(|reason| ModelError::Unsupported { path, reason })?;
        Ok(config)
    }

    /// The autoencoder; in f32 where it would overflow in f16.
    pub fn vae(&self, dtype: DType, device: &Device) -> Result<AutoencoderKl, ModelError> {
        let folder = self.folder(Part::Vae)?;
        let config = self.vae_config()?;
        let dtype = config.compute_dtype(dtype);
        ledger::load(&Weights::open(&folder)?, dtype, device, |vb| AutoencoderKl::new(&config, vb))
    }

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

    /// The folder as a scorer: a `CLIPModel` with its tokenizer at the top.
    pub fn scorer(&self, dtype: DType, device: &Device) -> Result<Scorer, ModelError> {
        let config: ClipConfig = read_json(&self.path.join("config.json"))?;
        let preprocess = self.path.join("preprocessor_config.json");
        Ok(Scorer {
            model: ledger::load(&Weights::open(&self.path)?, dtype, device, |vb| {
                ClipModel::new(&config, vb)
            })?,
            preprocess: if preprocess.is_file() {
                read_json(&preprocess)?
            } else {
                ClipPreprocess::default()
            },
            tokenizer: ClipTokenizer::open(&self.path)?,
        })
    }

    /// The scheduler's `scheduler_config.json`.
    pub fn scheduler_config(&self) -> Result<serde_json::Value, ModelError> {
        Ok(read_json(&self.folder(Part::Scheduler)?.join("scheduler_config.json"))?)
    }
}

/// A U-Net to compute with: held in memory if it fits well, else streamed.
pub fn unet(
    config: UNetConfig,
    weights: &Weights,
    dtype: DType,
    device: &Device,
) -> Result<UNet, ModelError> {
    let inventory = config.inventory();
    weights.check(inventory.tensors())?;
    let bytes = inventory.parameters() * dtype.size_in_bytes() as u64;
    let build = if bytes > memory::budget(device) { UNet::streamed } else { UNet::new };
    Ok(build(config, weights.builder(dtype, device))?)
}

/// A U-Net over variables in f32 with activations of `dtype`; the variables by the names of their tensors.
pub fn unet_trainable(
    config: UNetConfig,
    weights: &Weights,
    dtype: DType,
    device: &Device,
) -> Result<(UNet, BTreeMap<String, Var>), ModelError> {
    let mut variables = BTreeMap::new();
    for entry in config.inventory().tensors() {
        weights.check(std::slice::from_ref(entry))?;
        let variable = Var::from_tensor(&weights.tensor(&entry.name, DType::F32, device)?)?;
        variables.insert(entry.name.clone(), variable);
    }
    let tensors: HashMap<_, _> =
        variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone())).collect();
    let unet = UNet::new(config, VarBuilder::from_tensors(tensors, DType::F32, device))?;
    Ok((unet.computing_in(dtype, device), variables))
}
