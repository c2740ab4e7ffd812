//! Opens one part of a model directory.

use std::path::Path;

use serde_json::{Map, Value};

use super::Depth;
use super::error::SurveyError;
use crate::base::{FileError, files};
use crate::model::clip::TextConfig;
use crate::model::files::contents::{self, ModelFile};
use crate::model::unet;
use crate::model::vae::VaeConfig;
use crate::model::{ModelDirectory, ModelError, Part, Weights, WeightsError};
use crate::sample::{self, NoiseSchedule};

/// Names that a note shows.
const SHOWN: usize = 3;

/// What is opened, and how much of it is read.
pub(super) struct Parts<'a> {
    pub(super) directory: &'a ModelDirectory,
    /// The files of the model, which decide on the precision of each part's weights.
    pub(super) files: &'a [ModelFile],
    pub(super) depth: Depth,
}

impl Parts<'_> {
    /// Opens a part that is there. Returns notes on what of it nothing reads.
    pub(super) fn open(&self, part: Part) -> Result<Vec<String>, SurveyError> {
        let directory = self.directory;
        match part {
            Part::Scheduler => {
                let config = directory.scheduler_config()?;
                let path = directory.folder(part)?.join("scheduler_config.json");
                match NoiseSchedule::from_config(&config) {
                    Ok(_) => Ok(sample::notes(&config)),
                    Err(error) => Err(SurveyError::Scheduler { path, error }),
                }
            }
            Part::Tokenizer | Part::Tokenizer2 => {
                directory.tokenizer(part)?;
                Ok(Vec::new())
            }
            Part::UNet => {
                let config = directory.unet_config()?;
                let weights = self.weights(part)?;
                let inventory = config.inventory();
                let unread = weights.unread(inventory.tensors()).map_err(ModelError::from)?;
                weights.check(inventory.tensors()).map_err(ModelError::from)?;
                if let Some((name, others)) = unread.split_first() {
                    let (path, name, more) = (weights.path().to_owned(), name.clone(), others.len());
                    return Err(ModelError::from(WeightsError::Unplaced { path, name, more }).into());
                }
                let keys = |keys: &_| unet::unknown_keys(keys).map_err(std::io::Error::other);
                self.finish(part, &weights, Vec::new(), keys)
            }
            Part::Vae => {
                let weights = self.weights(part)?;
                let unread = directory.check_vae(&weights)?;
                let keys = |keys: &_| VaeConfig::unknown_keys(keys).map_err(std::io::Error::other);
                self.finish(part, &weights, unread, keys)
            }
            Part::TextEncoder | Part::TextEncoder2 => {
                let weights = self.weights(part)?;
                let unread = directory.check_text_encoder(part, &weights)?;
                let keys = |keys: &_| TextConfig::unknown_keys(keys).map_err(std::io::Error::other);
                self.finish(part, &weights, unread, keys)
            }
        }
    }

    /// Reads the weights if asked to, and lists what is not read.
    fn finish(
        &self,
        part: Part,
        weights: &Weights,
        unread: Vec<String>,
        unknown: impl Fn(&Map<String, Value>) -> std::io::Result<Vec<String>>,
    ) -> Result<Vec<String>, SurveyError> {
        if self.depth == Depth::Weights {
            weights.check_finite().map_err(ModelError::from)?;
        }
        let path = self.directory.folder(part)?.join("config.json");
        let config: Map<String, Value> = files::read_json(&path).map_err(FileError::at(&path))?;
        let unknown = unknown(&config).map_err(FileError::at(&path))?;
        let notes = [
            note(weights.path(), "tensors that are not read", &unread),
            note(&path, "keys that are not known and have no effect here", &unknown),
        ];
        Ok(notes.into_iter().flatten().collect())
    }

    /// The weights of a part, in the precision that was chosen.
    fn weights(&self, part: Part) -> Result<Weights, ModelError> {
        let folder = self.directory.folder(part)?;
        let root = self.directory.path();
        let name = if folder == root { "" } else { part.folder() };
        Ok(match contents::weights_of(self.files, name) {
            Some(file) => Weights::open(&root.join(&file.from))?,
            // The error says what is there instead.
            None => Weights::open(&folder)?,
        })
    }
}

fn note(path: &Path, what: &str, names: &[String]) -> Option<String> {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| format!("{}: {what}: {}{more}", path.display(), shown.join(", ")))
}
