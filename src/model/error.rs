//! What can be wrong with a model, and what to do about it.

use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use super::clip::TokenizerError;
use super::files::WeightsError;
use super::unet::ConfigError;

/// A model that cannot be loaded.
#[derive(Debug, Error, Diagnostic)]
pub enum ModelError {
    /// The folder is not there, or no model.
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
    #[error("{} is not a Stable Diffusion checkpoint: {reason}", path.display())]
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
