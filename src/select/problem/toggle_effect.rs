//! The effect of one step from a selection to another: a unit is removed, or kept again.

use super::budget::Budget;
use super::selection_problem::SelectionProblem;

/// The effect of toggling a unit in a selection.
pub(in crate::select) struct ToggleEffect {
    /// The unit.
    pub(in crate::select) unit: usize,
    /// The outermost unit around it, or the unit itself.
    pub(in crate::select) root: usize,
    /// The units that become named (1) or stop being named (-1).
    changes: Vec<(usize, f64)>,
    /// The change of the objective.
    pub(in crate::select) value: f64,
    /// The change of the amount saved, for each budget.
    pub(in crate::select) saved: Vec<i128>,
}

impl SelectionProblem {
    /// The effect of toggling `unit`.
    pub(in crate::select) fn toggled(&self, named: &[bool], unit: usize) -> ToggleEffect {
        let mut other = named.to_vec();
        self.tree.toggle(&mut other, unit);
        let sign = |unit: usize| f64::from(u8::from(other[unit])) - f64::from(u8::from(named[unit]));
        let changes: Vec<_> =
            (0..named.len()).map(|unit| (unit, sign(unit))).filter(|(_, sign)| *sign != 0.0).collect();
        let saved = |budget: &Budget| {
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
        ToggleEffect { unit, root, value, saved: self.budgets.iter().map(saved).collect(), changes }
    }

    /// Whether two toggles are independent: neither unit lies inside the other, and no unit is changed by both.
    pub(in crate::select) fn is_apart(&self, one: &ToggleEffect, two: &ToggleEffect) -> bool {
        let shared = |unit: usize| two.changes.iter().any(|&(other, _)| other == unit);
        one.root != two.root
            || !(self.tree.is_nested(one.unit, two.unit) || one.changes.iter().any(|&(unit, _)| shared(unit)))
    }

    /// The joint loss of the changes of two toggles.
    pub(in crate::select) fn between(&self, one: &ToggleEffect, two: &ToggleEffect) -> f64 {
        if self.gram.is_empty() {
            return 0.0;
        }
        let pairs = one.changes.iter().flat_map(|a| two.changes.iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| a.1 * b.1 * self.gram[a.0 * self.units.len() + b.0]).sum()
    }
}
