//! What a training is measured by while it runs: the losses on rows that it never trains on, and pictures of some prompts.
//!
//! Both are of the weights that the training would end with now: the moving average if there is one. Rows, timesteps and
//! noise are the same each time, so that two measurements differ by the weights alone. Nothing of the training changes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::history::FeatureLoss;
use super::lines;
use super::term_weights::ByKind;
use crate::base::files;

/// The name of the measured losses.
pub const VALIDATION_FILE: &str = "validation.jsonl";

/// The folder of the pictures.
pub const PICTURES: &str = "validation";

/// One line of `validation.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationLine {
    /// Steps done.
    pub step: u64,
    /// Mean-squared difference from the noise or velocity, each sample weighted if `min-snr-gamma` is given.
    pub task: f32,
    /// Mean-squared difference from the teacher's prediction.
    pub output: f32,
    /// By the path of the feature map.
    pub features: BTreeMap<String, FeatureLoss>,
    /// The terms with all their weights.
    pub weighted: ByKind,
    /// Their sum.
    pub total: f32,
}

impl ValidationLine {
    /// Its numbers by the names that watchers show them under.
    pub fn numbers(&self) -> Vec<(String, f64)> {
        [("total", self.total), ("task", self.task), ("output", self.output)]
            .map(|(name, value)| (format!("validation/{name}"), f64::from(value)))
            .to_vec()
    }
}

/// Reads what a training has measured so far, or in all; nothing if it does not validate.
pub fn read(folder: &Path) -> io::Result<Vec<ValidationLine>> {
    match lines::read_unfinished(&folder.join(VALIDATION_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        lines => lines,
    }
}

/// The picture of a prompt after so many steps, below the folder of a training: `validation/000000400-000.png`.
pub fn picture_path(folder: &Path, step: u64, prompt: usize) -> PathBuf {
    folder.join(PICTURES).join(format!("{step:09}-{prompt:03}.png"))
}

/// The name of a prompt's pictures for watchers.
pub fn picture_name(prompt: usize) -> String {
    format!("validation/{prompt:03}")
}

/// A picture that was drawn while training.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrawnPicture {
    /// Steps done.
    pub step: u64,
    /// The index of the prompt.
    pub prompt: usize,
    /// Its file.
    pub path: PathBuf,
}

/// The pictures below the folder of a training, in the order of their steps.
pub fn drawn(folder: &Path) -> io::Result<Vec<DrawnPicture>> {
    let entries = match std::fs::read_dir(folder.join(PICTURES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbers = name.strip_suffix(".png").and_then(|name| name.split_once('-'));
        if let Some((Ok(step), Ok(prompt))) = numbers.map(|(step, prompt)| (step.parse(), prompt.parse())) {
            found.push(DrawnPicture { step, prompt, path });
        }
    }
    found.sort();
    Ok(found)
}

/// The prompts of the pictures below the folder of a training.
pub fn prompts(folder: &Path) -> Vec<String> {
    files::read_json(&folder.join(PICTURES).join(PROMPTS)).unwrap_or_default()
}

/// The file with the prompts.
pub const PROMPTS: &str = "prompts.json";
