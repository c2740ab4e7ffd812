//! `selection.json`: what goes, what that is predicted to cost, and the selections it must be compared with.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::baselines::{ADDITIVE, baselines};
use super::knapsack::{self, bound};
use super::predicted::sampled;
use super::request::unet_of_blocks;
use super::{
    Budget, Front, FrontPoint, Layout, Method, Predicted, Problem, Refinement, Request, SelectError, Solved,
};
use crate::backend::Random;
use crate::base::{UnitId, files};
use crate::score::Scores;

/// The version of `selection.json` that this program writes and reads.
pub const FORMAT: u32 = 2;
/// The name of the file, in a selection's folder and in a pruned model's.
pub const FILE: &str = "selection.json";

/// A selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// Version of the file's layout.
    pub format: u32,
    /// Whose scores were summed.
    pub criterion: String,
    /// What was to be small.
    pub objective: String,
    /// How the units were chosen: a solver's name, or that of a layout.
    pub solver: String,
    /// The program or shape that the selection fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fits: Option<String>,
    /// The layout made by hand. If it drops layers, `removed` is what of the units it does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// The share of parameters that was to go at least; 0 where only other budgets were given.
    pub ratio_asked: f64,
    /// The share that goes.
    pub ratio_reached: f64,
    /// Every budget: what was asked and what is reached.
    pub budgets: Vec<Spent>,
    /// The units that go; a unit that goes entirely is named by itself.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
    /// Parameters of the whole U-Net before.
    pub unet_parameters: u64,
    /// What it is predicted to cost.
    pub predicted: Predicted,
    /// How it was refined by measured losses, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<Refinement>,
    /// The exact optimum of the summed scores for each half per cent of the U-Net, lightest first.
    pub front: Vec<FrontPoint>,
    /// Other selections of the same budgets, for `evaluate` to measure beside this one.
    pub baselines: Vec<Baseline>,
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// What is counted.
    pub quantity: String,
    /// The share that was to go at least.
    pub asked: f64,
    /// The share that goes.
    pub reached: f64,
}

/// Another selection of the same budgets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// `greedy`, `additive-knapsack`, `magnitude-knapsack`, `random-7`.
    pub name: String,
    /// The units that go.
    pub removed: Vec<UnitId>,
    /// Their parameters.
    pub removed_parameters: u64,
}

/// A choice before it is a selection.
struct Chosen {
    removed: BTreeSet<UnitId>,
    /// With layers that no unit stands for.
    removed_parameters: u64,
    solved: Solved,
    /// What it had to be chosen from, by the sum of scores.
    front: Front,
}

impl Selection {
    /// Chooses the units that `request` asks for.
    pub fn make(scores: &Scores, request: &Request<'_>, random: &Random) -> Result<Self, SelectError> {
        let mut problem = request.problem(scores)?;
        let chosen = choose(scores, request, &mut problem, random)?;
        let (name, fits, layout) = match request.method {
            Method::Solver(solver) => (solver.name(), None, None),
            Method::Fitting(fit) => (knapsack::NAME, Some(fit.name.to_owned()), None),
            Method::Layout(layout) => (layout.name, None, Some(layout.name.to_owned())),
        };
        let spent = |budget: &Budget| Spent {
            quantity: budget.quantity.to_owned(),
            asked: budget.asked,
            reached: match layout {
                Some(_) => chosen.removed_parameters,
                None => budget.saved(&problem.named(&chosen.removed)),
            } as f64
                / budget.total as f64,
        };
        let budgets: Vec<_> = problem.budgets.iter().map(spent).collect();
        let total = scores.unet_parameters;
        Ok(Self {
            format: FORMAT,
            criterion: request.criterion.to_owned(),
            objective: request.objective.name.to_owned(),
            solver: name.to_owned(),
            fits,
            ratio_asked: match request.method {
                Method::Layout(_) => chosen.removed_parameters as f64 / total as f64,
                Method::Fitting(_) => problem.budgets[0].asked,
                Method::Solver(_) => request.budgets.parameters.unwrap_or(0.0),
            },
            layout,
            ratio_reached: chosen.removed_parameters as f64 / total as f64,
            budgets,
            removed_parameters: chosen.removed_parameters,
            unet_parameters: total,
            predicted: Predicted::of(scores, request.criterion, &problem, &chosen.removed, &chosen.solved),
            refinement: None,
            front: sampled(&chosen.front, total),
            baselines: baselines(scores, &problem, request, random)?,
            removed: in_walk_order(scores, &chosen.removed),
        })
    }

    /// The selection with the units that a refinement found.
    pub fn refined(
        &mut self,
        scores: &Scores,
        request: &Request<'_>,
        (removed, refinement): (BTreeSet<UnitId>, Refinement),
    ) -> Result<(), SelectError> {
        let problem = request.problem(scores)?;
        let solved = Solved {
            named: problem.named(&removed),
            bound: Some(self.predicted.bound),
            nodes: self.predicted.nodes,
        };
        self.predicted = Predicted::of(scores, request.criterion, &problem, &removed, &solved);
        self.removed_parameters = scores.parameters(&removed);
        self.ratio_reached = self.removed_parameters as f64 / self.unet_parameters as f64;
        for (spent, budget) in self.budgets.iter_mut().zip(&problem.budgets) {
            spent.reached = budget.saved(&solved.named) as f64 / budget.total as f64;
        }
        self.removed = in_walk_order(scores, &removed);
        let paper = &refinement.candidates[0];
        if paper.removed != self.removed && self.baselines.iter().all(|one| one.name != ADDITIVE) {
            let (removed, removed_parameters) = (paper.removed.clone(), paper.removed_parameters);
            self.baselines.insert(0, Baseline { name: ADDITIVE.to_owned(), removed, removed_parameters });
        }
        self.refinement = Some(refinement);
        Ok(())
    }

    /// Reads `selection.json` from an artefact's folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::read_json_of(&folder.join(FILE), FORMAT, |selection: &Self| selection.format)
    }

    /// Writes `selection.json` into `folder`.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }

    /// The layout that drops layers, which no removal of units alone can do.
    pub fn dropped_layers(&self) -> Result<Option<&'static Layout>, SelectError> {
        let layout = self.layout.as_deref().map(super::layout).transpose()?;
        Ok(layout.filter(|layout| layout.drops_layers()))
    }

    /// The removed units as a set.
    pub fn removed(&self) -> BTreeSet<UnitId> {
        self.removed.iter().cloned().collect()
    }
}

/// Chooses by the request's method. What turns out to be asked of the parameters is set in `problem`.
fn choose(
    scores: &Scores,
    request: &Request<'_>,
    problem: &mut Problem,
    random: &Random,
) -> Result<Chosen, SelectError> {
    let parameters = |removed: &BTreeSet<UnitId>| scores.parameters(removed);
    let by_parameters = by_parameters(scores, request, problem)?;
    match request.method {
        Method::Solver(solver) => {
            problem.check()?;
            let mut solved = solver.solve(problem, random);
            solved.bound = solved.bound.or_else(|| bound(problem));
            let removed = problem.removed(&solved.named);
            let front = Front::of(&by_parameters);
            Ok(Chosen { removed_parameters: parameters(&removed), removed, solved, front })
        }
        Method::Fitting(fit) => {
            let front = Front::of_choices(fit.choices(&unet_of_blocks(scores)?, &by_parameters)?);
            if front.heaviest() == 0 {
                return Err(SelectError::NothingFits { fit: fit.name });
            }
            problem.budgets[0].check(front.heaviest())?;
            let point = front.cheapest(problem.budgets[0].needed).expect("the heaviest is enough");
            let removed = front.removed(point);
            if fit.is_one_shape() {
                // All that fits weighs the same; others are asked for as much.
                problem.budgets[0].ask(parameters(&removed));
                problem.budgets[0].asked = request.budgets.parameters.unwrap_or(problem.budgets[0].asked);
            }
            let named = problem.named(&removed);
            let solved = Solved { named, bound: bound(problem), nodes: 1 };
            Ok(Chosen { removed_parameters: parameters(&removed), removed, solved, front })
        }
        Method::Layout(layout) => {
            let unet = unet_of_blocks(scores)?;
            let dropped = scores.unet_parameters - layout.assemble(&unet)?.config().inventory().parameters();
            let removed = layout.removed(&unet)?;
            // A layout that drops layers can lose more than all units hold.
            let most = problem.budgets[0].saved(&problem.most());
            problem.budgets[0].ask(dropped.min(most));
            let solved = Solved { named: problem.named(&removed), bound: bound(problem), nodes: 0 };
            Ok(Chosen { removed, removed_parameters: dropped, solved, front: Front::of(&by_parameters) })
        }
    }
}

/// The problem by the sum of scores under the parameters alone.
fn by_parameters(scores: &Scores, request: &Request<'_>, problem: &Problem) -> Result<Problem, SelectError> {
    let summed = Request { objective: &super::OBJECTIVES[0], budgets: Default::default(), ..*request };
    Ok(Problem { rules: problem.rules.clone(), ..summed.problem(scores)? })
}

/// Units as a list.
pub(super) fn in_walk_order(scores: &Scores, removed: &BTreeSet<UnitId>) -> Vec<UnitId> {
    scores.units.iter().map(|unit| &unit.id).filter(|id| removed.contains(*id)).cloned().collect()
}
