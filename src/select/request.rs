//! A request for a selection, and the problem that it poses on given scores.

use std::collections::BTreeSet;

use super::error::SelectError;
use super::problem::{Budget, Contradiction, OBJECTIVES, Objective, ObjectiveInfo, SelectionProblem};
use super::shapes::{Fit, Layout};
use super::solver::Solver;
use crate::base::{UnitId, pattern};
use crate::model::UNetConfig;
use crate::profile::Latency;
use crate::score::Scores;

/// Bytes per weight in f16 or bf16, the types in which models run.
const BYTES: u64 = 2;
/// Latencies are counted in nanoseconds.
const NANOSECONDS: f64 = 1e9;
/// The number of similar names in an error.
const NEAR: usize = 3;

/// A request for a selection.
#[derive(Clone, Copy)]
pub struct SelectionRequest<'a> {
    /// The criterion whose scores are summed.
    pub criterion: &'a str,
    /// The objective to minimise.
    pub objective: &'static ObjectiveInfo,
    /// How the units are chosen.
    pub method: Method,
    /// The budgets to meet.
    pub budgets: Budgets<'a>,
    /// Patterns of units to keep, with everything inside them.
    pub keep: &'a [String],
    /// Patterns of units to remove.
    pub remove: &'a [String],
}

/// How units are chosen.
#[derive(Clone, Copy)]
pub enum Method {
    /// By a solver.
    Solver(&'static dyn Solver),
    /// The exact optimum among the selections that fit.
    Fitting(&'static Fit),
    /// By a handcrafted layout.
    Layout(&'static Layout),
}

/// The smallest shares to remove.
#[derive(Clone, Copy, Default)]
pub struct Budgets<'a> {
    /// The share of the U-Net's parameters.
    pub parameters: Option<f64>,
    /// The share of its multiply-accumulates at the size in its configuration.
    pub macs: Option<f64>,
    /// The share of the measured time of a forward pass.
    pub latency: Option<(f64, &'a Latency)>,
    /// The share of its weights' memory, or a limit on it.
    pub memory: Option<MemoryBudget>,
}

/// A limit on the weights' memory, in f16 or bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemoryBudget {
    /// The share to remove.
    Share(f64),
    /// The bytes that the kept weights may take.
    Bytes(u64),
}

impl<'a> SelectionRequest<'a> {
    /// Units chosen by the sum of `criterion`, so that at least the share `ratio` of the parameters is removed.
    pub fn new(criterion: &'a str, method: Method, ratio: Option<f64>) -> Self {
        let budgets = Budgets { parameters: ratio, ..Budgets::default() };
        Self { criterion, objective: &OBJECTIVES[0], method, budgets, keep: &[], remove: &[] }
    }

    /// The problem that the request poses on `scores`.
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

/// Adds the rule for the units that match `pattern`.
fn rule(
    problem: &mut SelectionProblem,
    list: &'static str,
    pattern: &str,
    goes: bool,
) -> Result<(), SelectError> {
    let found: Vec<_> = (0..problem.units.len())
        .filter(|&unit| pattern::matches(pattern, problem.units[unit].as_str()))
        .collect();
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

/// The units that share the longest prefix with a pattern.
fn near(pattern: &str, units: &[UnitId]) -> String {
    let common =
        |unit: &UnitId| unit.as_str().bytes().zip(pattern.bytes()).take_while(|(a, b)| a == b).count();
    let mut nearest: Vec<_> = units.iter().collect();
    nearest.sort_by_key(|unit| std::cmp::Reverse(common(unit)));
    let names: Vec<_> = nearest.iter().take(NEAR).map(|unit| format!("`{unit}`")).collect();
    format!("there are {} and {} more", names.join(", "), units.len().saturating_sub(NEAR))
}

impl Budgets<'_> {
    /// The budgets for the units of `scores`; that of parameters comes first.
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

/// The same, for fits and layouts, which need scores of exactly the ResNets, transformer blocks and Transformer2Ds.
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
