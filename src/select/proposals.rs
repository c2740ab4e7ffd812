//! Which units to toggle around a selection, and which toggles to make at once.

use std::collections::{BTreeMap, BTreeSet};

use super::Problem;

/// Toggles in one exchange, at most: beyond, the first order says little.
const AT_ONCE: usize = 4;

/// Units of the exchanges of up to three that the surrogate likes best around `named`, without those in `but`.
pub(super) fn likely(problem: &Problem, named: &[bool], most: usize, but: &[usize]) -> Vec<usize> {
    let open = (0..problem.units.len()).filter(|&unit| problem.rules.goes(unit).is_none());
    let toggles: Vec<_> = open.map(|unit| problem.toggled(named, unit)).collect();
    let n = toggles.len();
    // What two toggles cost together; nothing where one changes what the other does.
    let pairs: Vec<Option<f64>> = (0..n * n)
        .map(|at| (&toggles[at / n], &toggles[at % n]))
        .map(|(one, two)| problem.is_apart(one, two).then(|| 2.0 * problem.between(one, two)))
        .collect();
    let slack: Vec<_> = problem.budgets.iter().map(|budget| budget.slack(named)).collect();
    // Of each toggle, the value of the best exchange that it is part of.
    let mut best = vec![f64::INFINITY; n];
    let mut consider = |value: f64, places: &[usize]| {
        let saved = |budget: usize| places.iter().map(|&place| toggles[place].saved[budget]).sum::<i128>();
        if slack.iter().enumerate().all(|(budget, slack)| slack + saved(budget) >= 0) {
            places.iter().for_each(|&place| best[place] = best[place].min(value));
        }
    };
    for first in 0..n {
        let one = toggles[first].value;
        consider(one, &[first]);
        for second in first + 1..n {
            let Some(between) = pairs[first * n + second] else { continue };
            let two = one + toggles[second].value + between;
            consider(two, &[first, second]);
            for third in second + 1..n {
                if let (Some(a), Some(b)) = (pairs[first * n + third], pairs[second * n + third]) {
                    consider(two + toggles[third].value + a + b, &[first, second, third]);
                }
            }
        }
    }
    let mut order: Vec<_> = (0..n).filter(|&place| best[place] < f64::INFINITY).collect();
    order.sort_by(|&a, &b| best[a].total_cmp(&best[b]));
    let units = order.into_iter().map(|place| toggles[place].unit).filter(|unit| !but.contains(unit));
    units.take(most).collect()
}

/// The effects around a selection.
pub(super) struct Local<'a> {
    problem: &'a Problem,
    named: &'a [bool],
    units: Vec<usize>,
    /// Products of the effects of the selection, then of each toggle, row by row.
    products: Vec<f64>,
}

impl<'a> Local<'a> {
    pub(super) fn new(
        problem: &'a Problem,
        named: &'a [bool],
        units: Vec<usize>,
        products: Vec<f64>,
    ) -> Self {
        Self { problem, named, units, products }
    }

    /// The lawful exchanges of least predicted loss that are not known yet, best first.
    pub(super) fn exchanges(&self, most: usize, known: &BTreeMap<Vec<bool>, f64>) -> Vec<Vec<bool>> {
        let mut found: Vec<(f64, Vec<bool>)> = Vec::new();
        self.extend(0, &mut Vec::new(), &mut found);
        found.retain(|(_, named)| !known.contains_key(named));
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        // All parts of a unit by themselves are the unit.
        let mut seen = BTreeSet::new();
        found.retain(|(_, named)| seen.insert(named.clone()));
        found.into_iter().take(most).map(|(_, named)| named).collect()
    }

    fn extend(&self, from: usize, places: &mut Vec<usize>, found: &mut Vec<(f64, Vec<bool>)>) {
        let mut named = self.named.to_vec();
        places.iter().for_each(|&place| self.problem.tree.toggle(&mut named, self.units[place]));
        if !places.is_empty()
            && self.problem.reaches(&named)
            && self.problem.rules.allow(&self.problem.tree, &named)
        {
            found.push((self.predicted(places), named));
        }
        if places.len() < AT_ONCE {
            for place in from..self.units.len() {
                let nested =
                    |&other: &usize| self.problem.tree.is_nested(self.units[place], self.units[other]);
                if places.iter().any(nested) {
                    continue;
                }
                places.push(place);
                self.extend(place + 1, places, found);
                places.pop();
            }
        }
    }

    /// `mean((d_R + sum (d_u - d_R))^2)` over the toggles at `places`.
    fn predicted(&self, places: &[usize]) -> f64 {
        let size = self.units.len() + 1;
        let own = 1.0 - places.len() as f64;
        let mut loss = own * own * self.products[0];
        for place in places {
            let row = &self.products[(place + 1) * size..][..size];
            loss += 2.0 * own * row[0] + places.iter().map(|other| row[other + 1]).sum::<f64>();
        }
        loss
    }
}
