//! `selection.json`: the units to remove, what removing them is predicted to cost, and the selections to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::confidence::Interval;
use super::error::SelectError;
use super::shapes::Layout;
use crate::base::{UnitId, files};

/// The version of `selection.json` that this program writes and reads.
pub const FORMAT: u32 = 2;
/// The name of the file, in the folder of a selection and in that of a pruned model.
const FILE: &str = "selection.json";

/// The units to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Version of the file's layout.
    pub format: u32,
    /// The criterion whose scores were summed.
    pub criterion: String,
    /// The objective that was minimised.
    pub objective: String,
    /// How the units were chosen: the name of a solver or of a layout.
    pub solver: String,
    /// The program or shape that the selection fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fits: Option<String>,
    /// The handcrafted layout. If it drops layers, `removed` lists the units that it lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// The smallest share of parameters to remove that was asked for; 0 where only other budgets were given.
    pub ratio_asked: f64,
    /// The share of parameters that is removed.
    pub ratio_reached: f64,
    /// Whether a linear map in place of each removed unit was counted, so that less is saved than the units hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub linear: bool,
    /// Every budget: what was asked for and what is reached.
    pub budgets: Vec<Spent>,
    /// The removed units. A unit that is removed whole is listed without its parts.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
    /// Parameters of the whole U-Net before pruning.
    pub unet_parameters: u64,
    /// What the removal is predicted to cost.
    pub predicted: Predicted,
    /// How the selection was refined by measured losses, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<Refinement>,
    /// The exact optimum of the summed scores at each half per cent of the U-Net, lightest first.
    pub front: Vec<FrontPoint>,
    /// Other selections under the same budgets; `evaluate` measures them beside this one.
    pub baselines: Vec<Baseline>,
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// What is counted.
    pub quantity: String,
    /// The smallest share to remove that was asked for.
    pub asked: f64,
    /// The share that is removed.
    pub reached: f64,
}

/// Predictions of a selection's loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// The objective that the solver minimised.
    pub objective: f64,
    /// No selection under these budgets has a smaller objective, up to a relative 1e-7, the precision of the search. Where it
    /// equals the objective, the selection is proven optimal.
    pub bound: f64,
    /// How far the objective may lie above the optimum, as a share of the objective; none for an objective of zero that is not
    /// proven optimal.
    pub gap: Option<f64>,
    /// Sub-problems that the solver examined.
    pub nodes: usize,
    /// The sum of output losses, where they were scored or the Gram matrix is known.
    pub additive: Option<f64>,
    /// `1' G 1` over the removed units, where the Gram matrix is known.
    pub gram: Option<f64>,
    /// The joint loss to expect, by the criterion's sum and by `gram`, each calibrated on its own measurements of random sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joint: BTreeMap<String, Interval>,
}

/// A point of the Pareto front.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// Parameters that are removed.
    pub removed_parameters: u64,
    /// Their share of the U-Net.
    pub ratio: f64,
    /// The smallest summed score at which so many can be removed.
    pub loss: f64,
}

/// Another selection under the same budgets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// `greedy`, `additive-knapsack`, `magnitude-knapsack`, `random-7`.
    pub name: String,
    /// The removed units.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
}

/// How a selection was refined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refinement {
    /// The portfolio, the additive optimum first.
    pub candidates: Vec<Candidate>,
    /// Evaluations beyond the portfolio that were allowed.
    pub allowed: usize,
    /// Evaluations beyond the portfolio that were used.
    pub evaluations: usize,
    /// The joint loss of the selection on the calibration points.
    pub measured: f64,
    /// Each improvement on the best candidate.
    pub history: Vec<Improvement>,
}

/// A selection that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// `additive`, `gram` or `additive-and-gram-0.25`; with `+2%` where more was asked for, and with the unit that was kept.
    pub name: String,
    /// The removed units.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
    /// The sum of the criterion's scores.
    pub additive: Option<f64>,
    /// `1' G 1`.
    pub gram: Option<f64>,
    /// The joint loss on the calibration points.
    pub measured: f64,
}

/// A better selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Improvement {
    /// The number of evaluations beyond the portfolio after which it was found.
    pub evaluations: usize,
    /// Its joint loss.
    pub measured: f64,
    /// Units that are removed in addition.
    pub gone: Vec<UnitId>,
    /// Units that are kept again.
    pub back: Vec<UnitId>,
}

impl Selection {
    /// Reads `selection.json` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::read_json_of(&folder.join(FILE), FORMAT, |selection: &Self| selection.format)
    }

    /// Writes `selection.json` into `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }

    /// The layout, if it drops layers, which no removal of units alone can do.
    pub fn dropped_layers(&self) -> Result<Option<&'static Layout>, SelectError> {
        let layout = self.layout.as_deref().map(Layout::find).transpose()?;
        Ok(layout.filter(|layout| layout.drops_layers()))
    }

    /// The removed units as a set.
    pub fn removed(&self) -> BTreeSet<UnitId> {
        self.removed.iter().cloned().collect()
    }
}
