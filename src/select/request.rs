//! What is asked of a selection, and the problem that it makes of scores.

use std::collections::BTreeSet;

use super::error::SelectError;
use super::problem::{
    Budget, Contradiction, OBJECTIVES, Objective, ObjectiveInfo, SelectionProblem, matches,
};
use super::shapes::{Fit, Layout};
use super::solver::Solver;
use crate::base::UnitId;
use crate::model::UNetConfig;
use crate::profile::Latency;
use crate::score::Scores;

/// Bytes of a weight in f16 or bf16, as models are run.
const BYTES: u64 = 2;
/// Seconds are counted in these.
const NANOSECONDS: f64 = 1e9;
/// Similar names in an error.
const NEAR: usize = 3;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct SelectionRequest<'a> {
    /// Whose scores are summed.
    pub criterion: &'a str,
    /// What is to be small.
    pub objective: &'static ObjectiveInfo,
    /// How the units are chosen.
    pub method: Method,
    /// What must be saved.
    pub budgets: Budgets<'a>,
    /// Patterns of units that stay, with all that lies inside.
    pub keep: &'a [String],
    /// Patterns of units that go.
    pub remove: &'a [String],
}

/// How units are chosen.
#[derive(Clone, Copy)]
pub enum Method {
    /// By a solver.
    Solver(&'static dyn Solver),
    /// The exact optimum of what fits.
    Fitting(&'static Fit),
    /// By hand.
    Layout(&'static Layout),
}

/// The shares that must go at least.
#[derive(Clone, Copy, Default)]
pub struct Budgets<'a> {
    /// Of the U-Net's parameters.
    pub parameters: Option<f64>,
    /// Of its multiply-accumulates at the size of its configuration.
    pub macs: Option<f64>,
    /// Of the time of a forward pass, as it was measured.
    pub latency: Option<(f64, &'a Latency)>,
    /// Of the bytes of its weights.
    pub memory: Option<MemoryBudget>,
}

/// A limit on the weights' memory, in f16 or bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryBudget {
    /// So large a share goes.
    Share(f64),
    /// So many bytes are enough for what stays.
    Bytes(u64),
}

impl<'a> SelectionRequest<'a> {
    /// Units chosen by the sum of `criterion`, so that at least the share `ratio` of the parameters goes.
    pub fn new(criterion: &'a str, method: Method, ratio: Option<f64>) -> Self {
        let budgets = Budgets { parameters: ratio, ..Budgets::default() };
        Self { criterion, objective: &OBJECTIVES[0], method, budgets, keep: &[], remove: &[] }
    }

    /// The problem of `scores`.
    pub fn problem(&self, scores: &Scores) -> Result<SelectionProblem, SelectError> {
        let objective = Objective { criterion: self.criterion, gram: self.objective.gram };
        let mut problem = SelectionProblem::new(scores, &objective)?;
        problem.budgets = self.budgets.of(scores)?;
        for (list, patterns, goes) in [("keep", self.keep, false), ("remove", self.remove, true)] {
            for pattern in patterns {
                rule(&mut problem, list, pattern, goes)?;
            }
        }
        Ok(problem)
    }
}

/// Settles what `pattern` names.
fn rule(
    problem: &mut SelectionProblem,
    list: &'static str,
    pattern: &str,
    goes: bool,
) -> Result<(), SelectError> {
    let found: Vec<_> =
        (0..problem.units.len()).filter(|&unit| matches(pattern, problem.units[unit].as_str())).collect();
    if found.is_empty() {
        return Err(SelectError::NoMatch {
            list,
            pattern: pattern.to_owned(),
            near: near(pattern, &problem.units),
        });
    }
    for unit in found {
        let settled = match goes {
            true => problem.rules.set(&problem.tree, unit, true),
            false => problem.keep(unit),
        };
        settled.map_err(|Contradiction { unit }| SelectError::Contradiction {
            unit: problem.units[unit].clone(),
        })?;
    }
    Ok(())
}

/// The units that share the longest beginning with a pattern.
fn near(pattern: &str, units: &[UnitId]) -> String {
    let common =
        |unit: &UnitId| unit.as_str().bytes().zip(pattern.bytes()).take_while(|(a, b)| a == b).count();
    let mut nearest: Vec<_> = units.iter().collect();
    nearest.sort_by_key(|unit| std::cmp::Reverse(common(unit)));
    let names: Vec<_> = nearest.iter().take(NEAR).map(|unit| format!("`{unit}`")).collect();
    format!("there are {} and {} more", names.join(", "), units.len().saturating_sub(NEAR))
}

impl Budgets<'_> {
    /// The budgets for the units of `scores`, that of the parameters first.
    fn of(&self, scores: &Scores) -> Result<Vec<Budget>, SelectError> {
        let weights =
            |get: fn(&crate::score::UnitScores) -> u64| scores.units.iter().map(get).collect::<Vec<_>>();
        let parameters = weights(|unit| unit.parameters);
        let total = scores.unet_parameters;
        let ratio = self.parameters.unwrap_or(0.0);
        let mut budgets = vec![Budget::share("parameters", parameters.clone(), total, ratio)];
        if let Some(ratio) = self.macs {
            let unet = unet(scores)?;
            let (height, width) = unet.sample_size;
            let total = unet.inventory().macs(height, width);
            budgets.push(Budget::share("MACs", weights(|unit| unit.macs), total, ratio));
        }
        if let Some((ratio, latency)) = self.latency {
            let counted = |seconds: f64| (seconds * NANOSECONDS).round() as u64;
            let time = |unit: &crate::score::UnitScores| {
                let missing = || SelectError::NotProfiled { unit: unit.id.clone() };
                latency.seconds(&unit.id).map(counted).ok_or_else(missing)
            };
            let weights = scores.units.iter().map(time).collect::<Result<_, _>>()?;
            budgets.push(Budget::share("nanoseconds", weights, counted(latency.total_seconds), ratio));
        }
        if let Some(memory) = self.memory {
            let weights: Vec<_> = parameters.iter().map(|parameters| parameters * BYTES).collect();
            let total = total * BYTES;
            budgets.push(match memory {
                MemoryBudget::Share(ratio) => Budget::share("bytes", weights, total, ratio),
                MemoryBudget::Bytes(most) => {
                    Budget::amount("bytes", weights, total, total.saturating_sub(most))
                }
            });
        }
        if budgets.len() > 1 && self.parameters.is_none() {
            budgets.remove(0);
        }
        Ok(budgets)
    }
}

/// The configuration of the scored U-Net.
pub(super) fn unet(scores: &Scores) -> Result<UNetConfig, SelectError> {
    UNetConfig::parse(&scores.unet.to_string())
        .map_err(|error| SelectError::NoConfiguration { reason: error.to_string() })
}

/// The same, for fits and layouts: these count ResNets, blocks and whole Transformer2Ds, so that others must not have
/// been scored.
pub(super) fn unet_of_blocks(scores: &Scores) -> Result<UNetConfig, SelectError> {
    let unet = unet(scores)?;
    let inventory = unet.inventory();
    let counted: BTreeSet<&UnitId> = inventory.units().iter().map(|unit| &unit.id).collect();
    let scored: BTreeSet<&UnitId> = scores.units.iter().map(|unit| &unit.id).collect();
    match counted.symmetric_difference(&scored).next() {
        Some(unit) => Err(SelectError::OtherUnits { unit: (*unit).clone() }),
        None => Ok(unet),
    }
}
