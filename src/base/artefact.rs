//! The artefacts that stages pass to each other.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The kinds of artefact; an input accepts one or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ArtefactKind {
    /// A diffusers model directory.
    Model,
    /// `calibration.safetensors` and `prompts.json`.
    Calibration,
    /// Training data: `latents.json` and the shards that it lists.
    Latents,
    /// Text states without pictures: `texts.json` and the shards that it lists.
    Texts,
    /// `latency.json`.
    Profile,
    /// `scores.json` and `gram.safetensors`.
    Scores,
    /// `selection.json`.
    Selection,
    /// `metrics.json`, pictures and per-prompt values.
    Metrics,
    /// `model.safetensors` or the folder `model`, and `export.json`.
    Export,
}

/// A finished artefact in the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artefact {
    /// Its kind.
    pub kind: ArtefactKind,
    /// Its folder.
    #[serde(with = "super::path_text")]
    pub path: PathBuf,
    /// Digest of its files.
    pub digest: Digest,
}

impl fmt::Display for ArtefactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Calibration => "calibration",
            Self::Latents => "latents",
            Self::Texts => "texts",
            Self::Profile => "profile",
            Self::Scores => "scores",
            Self::Selection => "selection",
            Self::Metrics => "metrics",
            Self::Export => "export",
        })
    }
}
