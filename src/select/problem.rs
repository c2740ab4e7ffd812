//! The covering form of the 0-1 knapsack, over groups: which units to lose so that enough weight goes
//! and the summed loss is least.
//!
//! A ResNet is a group of its own. A Transformer2D is a group of its blocks: any proper subset of them
//! may go, and their losses add; or all of it goes, then its own measured loss counts and its shell's
//! weight goes too.

use std::collections::{BTreeMap, BTreeSet};

use super::SelectError;
use crate::base::UnitId;
use crate::score::{Scores, UnitScores};

/// Something that can be removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its unit.
    pub unit: UnitId,
    /// What losing it costs.
    pub loss: f64,
    /// What losing it saves, in the unit of the budget.
    pub weight: u64,
}

/// Items of which any subset may go; where `whole` is given, any *proper* subset, or the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The items.
    pub items: Vec<Item>,
    /// What stands for all items at once.
    pub whole: Option<Item>,
}

/// A selection problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Groups, independent of one another.
    pub groups: Vec<Group>,
    /// Weight of the entire U-Net.
    pub total: u64,
}

impl Problem {
    /// The problem of losing parameters, with losses by `criterion`.
    pub fn of_parameters(scores: &Scores, criterion: &str) -> Result<Self, SelectError> {
        Self::new(scores, criterion, scores.unet_parameters, |unit| unit.parameters)
    }

    /// The problem for any budget: `weight` says what a unit saves of `total`.
    pub fn new(
        scores: &Scores,
        criterion: &str,
        total: u64,
        weight: impl Fn(&UnitScores) -> u64,
    ) -> Result<Self, SelectError> {
        let item = |unit: &UnitScores| -> Result<Item, SelectError> {
            let loss = *unit.scores.get(criterion).ok_or_else(|| SelectError::UnknownCriterion {
                name: criterion.to_owned(),
                known: scores.criteria.join(", "),
            })?;
            if !loss.is_finite() {
                let (unit, criterion) = (unit.id.clone(), criterion.to_owned());
                return Err(SelectError::NotFinite { unit, criterion, loss });
            }
            Ok(Item { unit: unit.id.clone(), loss, weight: weight(unit) })
        };
        let mut blocks: BTreeMap<&UnitId, Vec<Item>> = BTreeMap::new();
        for unit in &scores.units {
            if let Some(parent) = &unit.parent {
                blocks.entry(parent).or_default().push(item(unit)?);
            }
        }
        let mut groups = Vec::new();
        for unit in scores.units.iter().filter(|unit| unit.parent.is_none()) {
            groups.push(match blocks.remove(&unit.id) {
                Some(items) => Group { items, whole: Some(item(unit)?) },
                None => Group { items: vec![item(unit)?], whole: None },
            });
        }
        match blocks.pop_first() {
            Some((parent, items)) => {
                Err(SelectError::Orphan { unit: items[0].unit.clone(), parent: parent.clone() })
            }
            None => Ok(Self { groups, total }),
        }
    }

    /// The weight that must go so that at least `ratio` of the total goes, or an error that names the largest possible ratio.
    pub fn needed(&self, ratio: f64) -> Result<u64, SelectError> {
        self.needed_of(ratio, self.available())
    }

    /// The weight that goes when everything goes.
    pub fn available(&self) -> u64 {
        self.groups.iter().map(Group::available).sum()
    }

    /// The same where only `available` can go.
    pub(super) fn needed_of(&self, ratio: f64, available: u64) -> Result<u64, SelectError> {
        let needed = (ratio * self.total as f64).ceil() as u64;
        if !(ratio >= 0.0 && needed <= available) {
            // Rounded down, so that what the message says can be asked for.
            let reachable = (available as f64 / self.total as f64 * 1e3).floor() / 1e3;
            return Err(SelectError::RatioUnreachable { ratio, needed, available, reachable });
        }
        Ok(needed)
    }

    /// Summed loss and weight of `removed`.
    pub fn cost(&self, removed: &BTreeSet<UnitId>) -> (f64, u64) {
        let items = self.groups.iter().flat_map(|group| group.items.iter().chain(&group.whole));
        let gone = items.filter(|item| removed.contains(&item.unit));
        gone.fold((0.0, 0), |(loss, weight), item| (loss + item.loss, weight + item.weight))
    }
}

impl Group {
    /// The unit that it is about: its whole, or its only item.
    pub fn name(&self) -> Option<&str> {
        self.whole.as_ref().or(self.items.first()).map(|item| item.unit.as_str())
    }

    /// The weight that goes when everything goes.
    pub fn available(&self) -> u64 {
        self.whole
            .as_ref()
            .map_or_else(|| self.items.iter().map(|item| item.weight).sum(), |item| item.weight)
    }
}
