//! `scores.json`: what each unit costs and what losing it does, by every criterion that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Additivity, Gram, OUTPUT_LOSS};
use crate::base::{UnitId, files};
use crate::model::network::UnitKind;

/// The version of `scores.json` that this program writes and reads.
pub const FORMAT: u32 = 2;
const FILE: &str = "scores.json";
const GRAM_FILE: &str = "gram.safetensors";

/// The scores of a U-Net's units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Version of the file's layout.
    pub format: u32,
    /// The criteria of which every unit has a value.
    pub criteria: Vec<String>,
    /// How many calibration points were averaged over.
    pub points: usize,
    /// Parameters of the whole U-Net.
    pub unet_parameters: u64,
    /// The U-Net's `config.json`, so that a selection can know what loaders make of it.
    #[serde(default)]
    pub unet: serde_json::Value,
    /// The units in walk order.
    pub units: Vec<UnitScores>,
    /// Whether losses add on this model, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additivity: Option<Additivity>,
    /// The Gram matrix of the units' effects, kept in a file of its own.
    #[serde(skip)]
    pub gram: Option<Gram>,
}

/// One unit and its scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitScores {
    /// Module path.
    pub id: UnitId,
    /// What it is.
    pub kind: UnitKind,
    /// Parameters of the branch.
    pub parameters: u64,
    /// Multiply-accumulates of the branch, for one sample of the config's size.
    pub macs: u64,
    /// The unit that directly holds it: a part's block, a block's Transformer2D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<UnitId>,
    /// The value by each criterion; lower means more dispensable.
    pub scores: BTreeMap<String, f64>,
}

impl Scores {
    /// Reads `scores.json` and, where there is one, `gram.safetensors` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut scores = files::read_json_of(&folder.join(FILE), FORMAT, |scores: &Self| scores.format)?;
        let gram = folder.join(GRAM_FILE);
        if gram.exists() {
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

    /// The sum of the scores of `removed` by `criterion`: what additivity predicts. `None` where a score is missing.
    pub fn additive(&self, removed: &BTreeSet<UnitId>, criterion: &str) -> Option<f64> {
        let units = self.units.iter().filter(|unit| removed.contains(&unit.id));
        units.map(|unit| self.of(unit, criterion)).sum()
    }

    /// The score of one of the units. Output losses are known wherever the Gram matrix is: they are its diagonal.
    pub fn of(&self, unit: &UnitScores, criterion: &str) -> Option<f64> {
        let diagonal = || {
            let gram = self.gram.as_ref().filter(|_| criterion == OUTPUT_LOSS)?;
            let row = gram.units().iter().position(|other| *other == unit.id)?;
            Some(gram.at(row, row))
        };
        unit.scores.get(criterion).copied().or_else(diagonal)
    }

    /// Parameters that go when `removed` goes.
    pub fn parameters(&self, removed: &BTreeSet<UnitId>) -> u64 {
        self.units.iter().filter(|unit| removed.contains(&unit.id)).map(|unit| unit.parameters).sum()
    }
}

/// The name and source of one criterion, for `laptop-diff list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CriterionInfo {
    /// What a pipeline file calls it.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}
