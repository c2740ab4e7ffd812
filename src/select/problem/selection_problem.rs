//! The problem that solvers solve: units with losses, budgets, and rules on what is removed or kept.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::Budget;
use super::objective::Objective;
use super::rules::{Contradiction, Rules};
use super::tree::Tree;
use crate::base::UnitId;
use crate::score::{Scores, UnitScores};
use crate::select::error::SelectError;

/// Minimise `sum of losses + x' gram x` over all selections that meet every budget, where `x` is 1 for each unit that the
/// selection names.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectionProblem {
    /// The units in walk order.
    pub units: Vec<UnitId>,
    /// Which unit lies inside which.
    pub tree: Tree,
    /// The loss of removing each unit by itself.
    pub losses: Vec<f64>,
    /// The joint losses of pairs of units, row by row; empty if losses simply add.
    pub gram: Vec<f64>,
    /// The budgets, at least one.
    pub budgets: Vec<Budget>,
    /// What must be removed or kept.
    pub rules: Rules,
}

impl SelectionProblem {
    /// The problem of minimising an objective of `scores`, without budgets and rules, which the caller sets.
    pub fn new(scores: &Scores, objective: &Objective<'_>) -> Result<Self, SelectError> {
        let units: Vec<_> = scores.units.iter().map(|unit| unit.id.clone()).collect();
        let losses =
            scores.units.iter().map(|unit| objective.loss(scores, unit)).collect::<Result<_, _>>()?;
        let tree = tree(&scores.units)?;
        let gram = objective.gram(scores)?;
        let rules = Rules::none(units.len());
        Ok(Self { units, tree, losses, gram, budgets: Vec::new(), rules })
    }

    /// The objective of a selection.
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

    /// Whether a selection meets every budget.
    pub fn reaches(&self, named: &[bool]) -> bool {
        self.budgets.iter().all(|budget| budget.saved(named) >= budget.needed)
    }

    /// Keeps `unit` and everything inside it.
    pub(in crate::select) fn keep(&mut self, unit: usize) -> Result<(), Contradiction> {
        let inside: Vec<_> = self.tree.inside(unit).collect();
        std::iter::once(unit).chain(inside).try_for_each(|one| self.rules.set(&self.tree, one, false))
    }

    /// The selection that removes everything that may be removed.
    pub fn most(&self) -> Vec<bool> {
        let mut named = vec![false; self.units.len()];
        for unit in self.tree.leaves() {
            named[unit] = self.rules.goes(unit) != Some(false);
        }
        self.tree.settle(&mut named);
        named
    }

    /// The selection that removes only what must be removed.
    pub fn least(&self) -> Vec<bool> {
        self.rules.least(&self.tree)
    }

    /// Fails if a budget is not met even when everything that may be removed is removed.
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

    /// Names units in the given order until every budget is met under `rules`; none if that is impossible.
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
            // These are all parts of a unit that must be kept.
            if !rules.allow(&self.tree, &named) {
                named = before;
            }
        }
        (self.reaches(&named) && rules.allow(&self.tree, &named)).then_some(named)
    }

    /// The same problem with other losses that simply add.
    pub fn additive(&self, losses: Vec<f64>) -> Self {
        Self { losses, gram: Vec::new(), ..self.clone() }
    }
}

/// The tree of the scored units; every parent must have been scored too.
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
