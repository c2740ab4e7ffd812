//! Errors of loading models, each with advice.

use std::io;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use super::clip::TokenizerError;
use super::files::WeightsError;
use super::unet::ConfigError;

/// A model that cannot be loaded.
#[derive(Debug, Error, Diagnostic)]
pub enum ModelError {
    /// The folder does not exist or is not a model.
    #[error("{} is not a model folder", path.display())]
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
    /// No part has weights of the requested variant.
    #[error("no part of the model has the variant `{variant}`")]
    #[diagnostic(code(model::no_variant), help("{}", variant_help(found)))]
    NoVariant {
        /// The requested variant.
        variant: String,
        /// The variants that exist.
        found: Vec<String>,
    },
    /// A required part is missing from the folder.
    #[error("{} has no `{part}`, which {purpose}", path.display())]
    #[diagnostic(
        code(model::missing_part),
        help("copy the folder `{part}` from the original model into this folder")
    )]
    MissingPart {
        /// The model folder.
        path: PathBuf,
        /// The part's folder.
        part: &'static str,
        /// What the part is needed for.
        purpose: &'static str,
    },
    /// A configuration that does not match what diffusers or transformers write.
    #[error("cannot read a part's configuration: {source}")]
    #[diagnostic(code(model::config), help("compare the file with the one of the original model"))]
    Config {
        /// Which file, and why.
        #[from]
        source: io::Error,
    },
    /// The U-Net's configuration.
    #[error("{}", at(path, error))]
    #[diagnostic(forward(error))]
    UNet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ConfigError,
    },
    /// The weights.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Weights(#[from] WeightsError),
    /// A file that is not a model.
    #[error("{} is not a Stable Diffusion checkpoint: {reason}", path.display())]
    #[diagnostic(
        code(model::checkpoint),
        help(
            "a single file must be a safetensors checkpoint in the original layout (`model.diffusion_model.…`), with \
             the U-Net of SD 1.x, SD 2.x or SDXL; otherwise convert it to a diffusers folder"
        )
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A single file of SD 2.x that may predict either.
    #[error("{} is an SD 2.x model that does not say what its U-Net predicts", path.display())]
    #[diagnostic(
        code(model::no_prediction),
        help(
            "set `prediction` in `with:`: `v_prediction` for models of 768 pixels, `epsilon` for base models of 512 pixels"
        )
    )]
    NoPrediction {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    #[diagnostic(code(model::write))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// A model configuration that is not supported.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(
        code(model::unsupported),
        help(
            "Stable Diffusion 1.x, 2.x and SDXL are supported; if no stage needs this part, remove its folder from the \
             model"
        )
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found and what is supported.
        reason: String,
    },
    /// A scorer whose files do not fit each other.
    #[error("{}: {reason}", path.display())]
    #[diagnostic(code(model::scorer), help("{fix}"))]
    Scorer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        fix: String,
    },
    /// The tokenizer.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A memory or device error.
    #[error("cannot build the model: {0}")]
    #[diagnostic(code(model::build), help("if memory runs out, use a smaller dtype or another device"))]
    Tensor(#[from] candle_core::Error),
}

/// The error with the file's path, once.
fn at(path: &Path, error: &ConfigError) -> String {
    match error {
        ConfigError::Read { .. } => error.to_string(),
        _ => format!("{}: {error}", path.display()),
    }
}

fn variant_help(found: &[String]) -> String {
    match found {
        [] => "the model has only weights without a variant: omit `variant`".to_owned(),
        _ => format!("available: {}; without `variant`, full precision is used", found.join(", ")),
    }
}
