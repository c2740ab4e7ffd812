//! `scores.json`: the size of each unit, and its score by each criterion.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::agreement::Additivity;
use super::gram::Gram;
use super::space::Space;
use crate::base::{UnitId, files};
use crate::model::network::UnitKind;

/// The version of `scores.json` that this program writes and reads.
pub(super) const FORMAT: u32 = 2;
/// The criterion whose values are the diagonal of the Gram matrix.
pub const OUTPUT_LOSS: &str = "output-loss";
const FILE: &str = "scores.json";
const GRAM_FILE: &str = "gram.safetensors";

/// The scores of a U-Net's units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Version of the file's layout.
    pub format: u32,
    /// The criteria; every unit has a value for each.
    pub criteria: Vec<String>,
    /// The space in which differences of predictions were measured.
    #[serde(default, skip_serializing_if = "Space::is_default")]
    pub space: Space,
    /// The number of calibration points.
    pub points: usize,
    /// The parameters of the whole U-Net.
    pub unet_parameters: u64,
    /// The U-Net's `config.json`: which selections a loader accepts depends on it.
    #[serde(default)]
    pub unet: serde_json::Value,
    /// The units in walk order.
    pub units: Vec<UnitScores>,
    /// Whether losses add on this model, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additivity: Option<Additivity>,
    /// The Gram matrix of the units' effects, in a file of its own.
    #[serde(skip)]
    pub gram: Option<Gram>,
}

/// One unit and its scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitScores {
    /// Module path.
    pub id: UnitId,
    /// Its kind.
    pub kind: UnitKind,
    /// The parameters of the branch.
    pub parameters: u64,
    /// The multiply-accumulates of the branch for one sample of the configured size.
    pub macs: u64,
    /// The unit that directly holds it: a part's block, a block's Transformer2D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<UnitId>,
    /// The value by each criterion; lower means more dispensable.
    pub scores: BTreeMap<String, f64>,
}

impl Scores {
    /// Reads `scores.json` and, if it exists, `gram.safetensors` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut scores = files::read_json_of(&folder.join(FILE), FORMAT, |scores: &Self| scores.format)?;
        let gram = folder.join(GRAM_FILE);
        if gram.try_exists()? {
            let units = scores.units.iter().map(|unit| unit.id.clone()).collect();
            scores.gram = Some(Gram::open(&gram, units)?);
        }
        Ok(scores)
    }

    /// Writes both files into `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        if let Some(gram) = &self.gram {
            gram.save(&folder.join(GRAM_FILE))?;
        }
        files::write_json(&folder.join(FILE), self)
    }

    /// The sum of the scores of `removed` by `criterion`: the prediction of additivity. `None` if a score is missing.
    pub fn additive(&self, removed: &BTreeSet<UnitId>, criterion: &str) -> Option<f64> {
        let units = self.units.iter().filter(|unit| removed.contains(&unit.id));
        units.map(|unit| self.of(unit, criterion)).sum()
    }

    /// The score of a unit. With a Gram matrix, output losses are always known: they are its diagonal.
    pub fn of(&self, unit: &UnitScores, criterion: &str) -> Option<f64> {
        let diagonal = || {
            let gram = self.gram.as_ref().filter(|_| criterion == OUTPUT_LOSS)?;
            let row = gram.units().iter().position(|other| *other == unit.id)?;
            Some(gram.at(row, row))
        };
        unit.scores.get(criterion).copied().or_else(diagonal)
    }

    /// The parameters of `removed`.
    pub fn parameters(&self, removed: &BTreeSet<UnitId>) -> u64 {
        self.units.iter().filter(|unit| removed.contains(&unit.id)).map(|unit| unit.parameters).sum()
    }
}
