//! The undominated choices for one part of a problem, as lists from the heaviest to the lightest, with falling loss.

use crate::base::UnitId;
use crate::select::problem::SelectionProblem;

/// A set of units to remove, with its weight and loss.
#[derive(Clone, Debug)]
pub(in crate::select) struct Choice {
    pub(in crate::select) weight: u64,
    pub(in crate::select) loss: f64,
    pub(in crate::select) units: Vec<UnitId>,
}

impl Choice {
    /// Nothing is removed.
    pub(in crate::select) fn nothing() -> Self {
        Self { weight: 0, loss: 0.0, units: Vec::new() }
    }

    /// Both sets.
    fn and(&self, other: &Self) -> Self {
        let units = self.units.iter().chain(&other.units).cloned().collect();
        Self { weight: self.weight + other.weight, loss: self.loss + other.loss, units }
    }
}

/// A choice of either list.
pub(in crate::select) fn either(one: Vec<Choice>, two: Vec<Choice>) -> Vec<Choice> {
    merge(one, two)
}

/// A choice of each list, combined.
pub(in crate::select) fn both(one: &[Choice], two: &[Choice]) -> Vec<Choice> {
    one.iter().map(|one| two.iter().map(|two| one.and(two)).collect()).fold(Vec::new(), merge)
}

impl SelectionProblem {
    /// The undominated choices for `unit` and everything inside, by losses and the first budget.
    pub(in crate::select) fn choices(&self, unit: usize) -> Vec<Choice> {
        either(self.kept(unit), self.whole(unit))
    }

    /// All of `unit` is removed, if that is allowed.
    pub(in crate::select) fn whole(&self, unit: usize) -> Vec<Choice> {
        if self.rules.goes(unit) == Some(false) {
            return Vec::new();
        }
        let (loss, weight) = (self.losses[unit], self.budgets[0].weights[unit]);
        vec![Choice { weight, loss, units: vec![self.units[unit].clone()] }]
    }

    /// The choices that keep `unit`; parts of it may be removed.
    pub(in crate::select) fn kept(&self, unit: usize) -> Vec<Choice> {
        if self.rules.goes(unit) == Some(true) {
            return Vec::new();
        }
        let parts = self.tree.parts(unit);
        if parts.is_empty() {
            return vec![Choice::nothing()];
        }
        // `every` removes each part so far and `some` keeps at least one, so only `some` keeps the unit.
        let (mut every, mut some) = (vec![Choice::nothing()], Vec::new());
        for &part in parts {
            some = either(both(&some, &self.choices(part)), both(&every, &self.kept(part)));
            every = both(&every, &self.whole(part));
        }
        some
    }

    /// The undominated choices that keep exactly `kept` parts of `unit` and remove the others whole; none if it has fewer.
    pub(in crate::select) fn keeping(&self, unit: usize, kept: usize) -> Vec<Choice> {
        let parts = match self.tree.parts(unit) {
            // A transformer of one block is one unit.
            [] => std::slice::from_ref(&unit),
            parts => parts,
        };
        let Some(gone) = parts.len().checked_sub(kept) else { return Vec::new() };
        if kept == 0 {
            return self.whole(unit);
        }
        // Indexed by the number of parts removed so far.
        let mut by_count = vec![Vec::new(); gone + 1];
        by_count[0].push(Choice::nothing());
        for &part in parts {
            let (stays, goes) = (self.kept(part), self.whole(part));
            for count in (0..=gone).rev() {
                let left = both(&by_count[count], &stays);
                let taken = if count > 0 { both(&by_count[count - 1], &goes) } else { Vec::new() };
                by_count[count] = either(left, taken);
            }
        }
        by_count.swap_remove(gone)
    }
}

/// Something with the two values that dominance compares.
pub(in crate::select) trait Weighed {
    /// Weight and loss.
    fn key(&self) -> (u64, f64);
}

impl Weighed for Choice {
    fn key(&self) -> (u64, f64) {
        (self.weight, self.loss)
    }
}

/// Merges two lists, heaviest first, and drops dominated entries; of equal ones, that of the first list is kept.
pub(in crate::select) fn merge<P: Weighed>(one: Vec<P>, two: Vec<P>) -> Vec<P> {
    let mut merged: Vec<P> = Vec::with_capacity(one.len() + two.len());
    let mut least = f64::INFINITY;
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    loop {
        let from_one = match (one.peek().map(P::key), two.peek().map(P::key)) {
            (Some(a), Some(b)) => a.0 > b.0 || (a.0 == b.0 && a.1 <= b.1),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return merged,
        };
        let next = if from_one { one.next() } else { two.next() };
        if let Some(next) = next.filter(|next| next.key().1 < least) {
            least = next.key().1;
            merged.push(next);
        }
    }
}
