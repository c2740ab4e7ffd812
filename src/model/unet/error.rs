//! Errors in a U-Net's `config.json`.

use std::io;

use miette::Diagnostic;
use thiserror::Error;

use crate::base::UnitId;

/// A `config.json` that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    #[diagnostic(code(unet::config_read), help("a U-Net's folder contains config.json and the weights"))]
    Read {
        /// The file.
        path: String,
        /// The system's message.
        source: io::Error,
    },
    /// The text is not JSON, or a key has a value of the wrong type.
    #[error("the U-Net's config.json cannot be parsed: {0}")]
    #[diagnostic(
        code(unet::config_parse),
        help("expected the config.json that diffusers writes for a UNet2DConditionModel")
    )]
    Parse(#[from] serde_json::Error),
    /// A feature of unsupported models.
    #[error("the U-Net's config.json has `{key}` = {found}, but only {needed} is supported")]
    #[diagnostic(
        code(unet::unsupported),
        help("Stable Diffusion 1.x, 2.x and SDXL, and models pruned from them, are supported")
    )]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is supported.
        needed: String,
    },
    /// Values that contradict one another.
    #[error("the U-Net's config.json contradicts itself: `{key}` is {found}, but {needed}")]
    #[diagnostic(code(unet::contradiction), help("compare it with the config.json of the original model"))]
    Contradiction {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What the other values require.
        needed: String,
    },
    /// A linear map that stands in place of no removed unit.
    #[error(
        "the U-Net's config.json lists `{unit}` in `linear_units`, but there is no place for a linear map"
    )]
    #[diagnostic(
        code(unet::no_place_for_map),
        help("`linear_units` may list units of `removed_units` of which no learned shortcut remains")
    )]
    NoPlaceForMap {
        /// The id.
        unit: UnitId,
    },
    /// A removed unit that the model does not have.
    #[error("the U-Net's config.json removes `{unit}`, which this U-Net does not have")]
    #[diagnostic(
        code(unet::unknown_removed_unit),
        help("`laptop-diff inspect MODEL --granularity resnet,attn1,attn2,ff` lists all removable units")
    )]
    UnknownUnit {
        /// The id.
        unit: UnitId,
    },
}
