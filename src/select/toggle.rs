//! One step from a selection to another: a unit goes, or comes back.

use super::{Problem, Rules};

/// A unit toggled in a selection.
pub(super) struct Toggle {
    /// The unit.
    pub(super) unit: usize,
    /// The outermost unit around it, or itself.
    pub(super) root: usize,
    /// The units that are named then (1) or no more (-1).
    changes: Vec<(usize, f64)>,
    /// What it adds to the objective.
    pub(super) value: f64,
    /// What it saves more, or less, of each budget.
    pub(super) saved: Vec<i128>,
}

impl Problem {
    /// What it would do to toggle `unit`.
    pub(super) fn toggled(&self, named: &[bool], unit: usize) -> Toggle {
        let mut other = named.to_vec();
        self.tree.toggle(&mut other, unit);
        let sign = |unit: usize| f64::from(u8::from(other[unit])) - f64::from(u8::from(named[unit]));
        let changes: Vec<_> =
            (0..named.len()).map(|unit| (unit, sign(unit))).filter(|(_, sign)| *sign != 0.0).collect();
        let saved = |budget: &super::Budget| {
            changes.iter().map(|&(unit, sign)| sign as i128 * i128::from(budget.weights[unit])).sum()
        };
        let mut value: f64 = changes.iter().map(|&(unit, sign)| sign * self.losses[unit]).sum();
        if !self.gram.is_empty() {
            for &(row, sign) in &changes {
                let row = &self.gram[row * named.len()..][..named.len()];
                let with = |named: &[bool]| {
                    row.iter().zip(named).filter(|(_, named)| **named).map(|(one, _)| one).sum::<f64>()
                };
                value += sign * (with(named) + with(&other));
            }
        }
        let root = self.tree.around(unit).last().unwrap_or(unit);
        Toggle { unit, root, value, saved: self.budgets.iter().map(saved).collect(), changes }
    }

    /// Whether two toggles can be made at once: neither unit lies inside the other, and no unit is changed by both.
    pub(super) fn is_apart(&self, one: &Toggle, two: &Toggle) -> bool {
        let shared = |unit: usize| two.changes.iter().any(|&(other, _)| other == unit);
        one.root != two.root
            || !(self.tree.is_nested(one.unit, two.unit) || one.changes.iter().any(|&(unit, _)| shared(unit)))
    }

    /// What the changes of two toggles cost together.
    pub(super) fn between(&self, one: &Toggle, two: &Toggle) -> f64 {
        if self.gram.is_empty() {
            return 0.0;
        }
        let pairs = one.changes.iter().flat_map(|a| two.changes.iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| a.1 * b.1 * self.gram[a.0 * self.units.len() + b.0]).sum()
    }

    /// Names units in an order until every budget is reached under `rules`; nothing where that cannot be.
    pub(super) fn fill(&self, rules: &Rules, order: impl IntoIterator<Item = usize>) -> Option<Vec<bool>> {
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
}
