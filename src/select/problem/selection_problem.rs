//! What the solvers solve: units with losses, the budgets, and what must go or stay.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::Budget;
use super::objective::Objective;
use super::rules::{Contradiction, Rules};
use super::tree::Tree;
use crate::base::UnitId;
use crate::score::{Scores, UnitScores};
use crate::select::error::SelectError;

/// Make the objective small over all selections that reach every budget: `sum of losses + x' gram x`, with `x` one for each
/// unit that the selection names.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionProblem {
    /// The units in walk order.
    pub units: Vec<UnitId>,
    /// Which lies inside which.
    pub tree: Tree,
    /// What losing a unit costs by itself.
    pub losses: Vec<f64>,
    /// What losing two units costs together, row by row; empty where losses simply add.
    pub gram: Vec<f64>,
    /// What must be saved, at least one.
    pub budgets: Vec<Budget>,
    /// What must go or stay.
    pub rules: Rules,
}

impl SelectionProblem {
    /// The problem of `scores` by an objective; budgets and rules are set by the caller.
    pub fn new(scores: &Scores, objective: &Objective<'_>) -> Result<Self, SelectError> {
        let units: Vec<_> = scores.units.iter().map(|unit| unit.id.clone()).collect();
        let losses =
            scores.units.iter().map(|unit| objective.loss(scores, unit)).collect::<Result<_, _>>()?;
        let tree = tree(&scores.units)?;
        let gram = objective.gram(scores)?;
        let rules = Rules::none(units.len());
        Ok(Self { units, tree, losses, gram, budgets: Vec::new(), rules })
    }

    /// What a selection costs.
    pub fn value(&self, named: &[bool]) -> f64 {
        let named: Vec<_> = (0..named.len()).filter(|&unit| named[unit]).collect();
        let mut value = named.iter().map(|&unit| self.losses[unit]).sum();
        if !self.gram.is_empty() {
            for &row in &named {
                let row = &self.gram[row * self.units.len()..][..self.units.len()];
                value += named.iter().map(|&column| row[column]).sum::<f64>();
            }
        }
        value
    }

    /// Whether a selection reaches every budget.
    pub fn reaches(&self, named: &[bool]) -> bool {
        self.budgets.iter().all(|budget| budget.saved(named) >= budget.needed)
    }

    /// Lets `unit` stay, with all that lies inside.
    pub(in crate::select) fn keep(&mut self, unit: usize) -> Result<(), Contradiction> {
        let inside: Vec<_> = self.tree.inside(unit).collect();
        std::iter::once(unit).chain(inside).try_for_each(|one| self.rules.set(&self.tree, one, false))
    }

    /// The selection that takes all that may go.
    pub fn most(&self) -> Vec<bool> {
        let mut named = vec![false; self.units.len()];
        for unit in self.tree.leaves() {
            named[unit] = self.rules.goes(unit) != Some(false);
        }
        self.tree.settle(&mut named);
        named
    }

    /// The selection that takes only what it must.
    pub fn least(&self) -> Vec<bool> {
        self.rules.least(&self.tree)
    }

    /// Fails where all that may go does not reach a budget.
    pub fn check(&self) -> Result<(), SelectError> {
        let most = self.most();
        self.budgets.iter().try_for_each(|budget| budget.check(budget.saved(&most)))
    }

    /// The units of a selection.
    pub fn removed(&self, named: &[bool]) -> BTreeSet<UnitId> {
        self.units.iter().zip(named).filter(|(_, named)| **named).map(|(unit, _)| unit.clone()).collect()
    }

    /// The selection of units.
    pub fn named(&self, removed: &BTreeSet<UnitId>) -> Vec<bool> {
        self.units.iter().map(|unit| removed.contains(unit)).collect()
    }

    /// The removed units as a list in walk order.
    pub(in crate::select) fn in_walk_order(&self, removed: &BTreeSet<UnitId>) -> Vec<UnitId> {
        self.units.iter().filter(|unit| removed.contains(*unit)).cloned().collect()
    }

    /// Names units in an order until every budget is reached under `rules`; nothing where that cannot be.
    pub(in crate::select) fn fill(
        &self,
        rules: &Rules,
        order: impl IntoIterator<Item = usize>,
    ) -> Option<Vec<bool>> {
        let mut named = rules.least(&self.tree);
        for unit in order {
            if self.reaches(&named) {
                break;
            }
            if rules.goes(unit) == Some(false) || self.tree.is_gone(&named, unit) {
                continue;
            }
            let before = named.clone();
            self.tree.toggle(&mut named, unit);
            // All parts of what must stay.
            if !rules.allow(&self.tree, &named) {
                named = before;
            }
        }
        (self.reaches(&named) && rules.allow(&self.tree, &named)).then_some(named)
    }

    /// The same problem with losses that simply add.
    pub fn additive(&self, losses: Vec<f64>) -> Self {
        Self { losses, gram: Vec::new(), ..self.clone() }
    }
}

/// Parents by place; every parent must have been scored.
fn tree(units: &[UnitScores]) -> Result<Tree, SelectError> {
    let places: BTreeMap<_, _> = units.iter().enumerate().map(|(place, unit)| (&unit.id, place)).collect();
    let parent = |unit: &UnitScores| match &unit.parent {
        None => Ok(None),
        Some(parent) => match places.get(parent) {
            Some(&place) => Ok(Some(place)),
            None => Err(SelectError::Orphan { unit: unit.id.clone(), parent: parent.clone() }),
        },
    };
    Ok(Tree::new(units.iter().map(parent).collect::<Result<_, _>>()?))
}
