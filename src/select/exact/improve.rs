//! Improves a selection by exchanges of one or two units, the best first, until none helps.

use crate::select::problem::{SelectionProblem, ToggleEffect};

impl SelectionProblem {
    /// Applies the best toggle of one or two units repeatedly while the objective falls.
    pub(in crate::select) fn improve(&self, named: &mut Vec<bool>) {
        while let Some(better) = self.exchange(named) {
            *named = better;
        }
    }

    /// The best neighbour of a selection, if it is better.
    fn exchange(&self, named: &[bool]) -> Option<Vec<bool>> {
        let n = self.units.len();
        let toggles: Vec<_> = (0..n).map(|unit| self.toggled(named, unit)).collect();
        let slack: Vec<_> = self.budgets.iter().map(|budget| budget.slack(named)).collect();
        let still_reaches = |pair: &[&ToggleEffect]| {
            let saved = |place: usize| pair.iter().map(|toggle| toggle.saved[place]).sum::<i128>();
            slack.iter().enumerate().all(|(place, slack)| slack + saved(place) >= 0)
        };
        // An improvement within rounding does not count.
        let mut least = -1e-12 * self.value(named).abs();
        let mut best = None;
        for (place, first) in toggles.iter().enumerate() {
            for second in &toggles[place..] {
                if first.unit != second.unit && first.root == second.root {
                    // The two toggles interact.
                    let mut other = named.to_vec();
                    self.tree.toggle(&mut other, first.unit);
                    self.tree.toggle(&mut other, second.unit);
                    let value = self.value(&other) - self.value(named);
                    if value < least && self.reaches(&other) && self.rules.allow(&self.tree, &other) {
                        (least, best) = (value, Some(other));
                    }
                    continue;
                }
                let pair: &[&ToggleEffect] =
                    if first.unit == second.unit { &[first] } else { &[first, second] };
                let value = match pair {
                    [one, two] => one.value + two.value + 2.0 * self.between(one, two),
                    _ => first.value,
                };
                if value >= least || !still_reaches(pair) {
                    continue;
                }
                let mut other = named.to_vec();
                pair.iter().for_each(|toggle| self.tree.toggle(&mut other, toggle.unit));
                if self.rules.allow(&self.tree, &other) {
                    (least, best) = (value, Some(other));
                }
            }
        }
        best
    }
}
