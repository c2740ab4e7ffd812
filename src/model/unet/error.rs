//! What can be wrong with a U-Net's `config.json`.

use std::io;

use miette::Diagnostic;
use thiserror::Error;

use crate::base::UnitId;

/// A `config.json` that we cannot build.
#[derive(Debug, Error, Diagnostic)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    #[diagnostic(code(unet::config_read), help("a U-Net's folder holds its config.json beside its weights"))]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The text is no JSON, or a key has a value of another type.
    #[error("the U-Net's config.json cannot be parsed: {0}")]
    #[diagnostic(code(unet::config_parse), help("expected what diffusers writes for a UNet2DConditionModel"))]
    Parse(#[from] serde_json::Error),
    /// A feature of other models.
    #[error("the U-Net's config.json has `{key}` = {found}, but only {needed} is supported")]
    #[diagnostic(
        code(unet::unsupported),
        help("Stable Diffusion 1.x, 2.x and SDXL, and what was pruned from them, are supported")
    )]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        needed: String,
    },
    /// Values that contradict one another.
    #[error("the U-Net's config.json contradicts itself: `{key}` is {found}, but {needed}")]
    #[diagnostic(
        code(unet::contradiction),
        help("compare it with the config.json of the model it came from")
    )]
    Contradiction {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What the other values ask for.
        needed: String,
    },
    /// A removed unit that the model never had.
    #[error("the U-Net's config.json removes `{unit}`, which such a U-Net does not have")]
    #[diagnostic(
        code(unet::unknown_removed_unit),
        help("`laptop-diff inspect MODEL --granularity resnet,attn1,attn2,ff` lists all that can go")
    )]
    UnknownUnit {
        /// The id.
        unit: UnitId,
    },
}
