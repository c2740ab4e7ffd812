//! Proposes the units to toggle around a selection, and the toggles to combine.

use std::collections::{BTreeMap, BTreeSet};

use crate::select::problem::SelectionProblem;

/// The largest number of toggles in one exchange; for more, the first-order prediction is poor.
const AT_ONCE: usize = 4;

/// The units in the best exchanges of up to three units around `named` by the surrogate, without those in `but`.
pub(super) fn likely(problem: &SelectionProblem, named: &[bool], most: usize, but: &[usize]) -> Vec<usize> {
    let open = (0..problem.units.len()).filter(|&unit| problem.rules.goes(unit).is_none());
    let toggles: Vec<_> = open.map(|unit| problem.toggled(named, unit)).collect();
    let n = toggles.len();
    // The joint loss of two toggles; none if they interact.
    let pairs: Vec<Option<f64>> = (0..n * n)
        .map(|at| (&toggles[at / n], &toggles[at % n]))
        .map(|(one, two)| problem.is_apart(one, two).then(|| 2.0 * problem.between(one, two)))
        .collect();
    let slack: Vec<_> = problem.budgets.iter().map(|budget| budget.slack(named)).collect();
    // For each toggle, the value of the best exchange that contains it.
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

/// The measured effects of toggles around a selection.
pub(super) struct Neighbourhood<'a> {
    problem: &'a SelectionProblem,
    named: &'a [bool],
    units: Vec<usize>,
    /// Products of the effects of the selection, then of each toggle, row by row.
    products: Vec<f64>,
}

impl<'a> Neighbourhood<'a> {
    pub(super) fn new(
        problem: &'a SelectionProblem,
        named: &'a [bool],
        units: Vec<usize>,
        products: Vec<f64>,
    ) -> Self {
        Self { problem, named, units, products }
    }

    /// The feasible exchanges of least predicted loss that were not measured yet, best first.
    pub(super) fn exchanges(&self, most: usize, known: &BTreeMap<Vec<bool>, f64>) -> Vec<Vec<bool>> {
        let mut found: Vec<(f64, Vec<bool>)> = Vec::new();
        self.extend(0, &mut Vec::new(), &mut found);
        found.retain(|(_, named)| !known.contains_key(named));
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Toggling all parts of a unit gives the same selection as toggling the unit.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::problem::{Budget, Rules, Tree};

    /// 0 holds 1 and 2; 3, 4 and 5 are single.
    fn problem(gram: Vec<f64>) -> SelectionProblem {
        let weights = vec![2, 1, 1, 1, 1, 1];
        SelectionProblem {
            units: (0..6).map(|unit| format!("{unit}").into()).collect(),
            tree: Tree::new(vec![None, Some(0), Some(0), None, None, None]),
            losses: vec![5.0, 1.0, 1.5, 3.0, 3.1, 2.0],
            gram,
            budgets: vec![Budget::share("parameters", weights, 5, 0.4)],
            rules: Rules::none(6),
        }
    }

    #[test]
    fn interactions_decide_which_units_are_tried() {
        let named = [false, true, false, false, false, true];
        assert_eq!(likely(&problem(Vec::new()), &named, 3, &[1]), [3, 5, 4]);
        // 3 and 4 cancel: both of them for 5 is the best exchange.
        let mut gram = vec![0.0; 36];
        (gram[3 * 6 + 4], gram[4 * 6 + 3]) = (-3.0, -3.0);
        assert_eq!(likely(&problem(gram), &named, 3, &[1]), [3, 4, 5]);
    }

    #[test]
    fn the_first_order_is_exact_where_effects_add_and_nested_units_are_never_toggled_together() {
        let problem = problem(Vec::new());
        // A whole is the sum of its parts: its shell has no effect.
        let effects: [[f64; 3]; 6] = [
            [3.0, 1.0, 0.0],
            [1.0, 0.0, 0.0],
            [2.0, 1.0, 0.0],
            [0.0, -2.0, 1.0],
            [-1.0, 0.5, 0.0],
            [0.0, 0.0, 4.0],
        ];
        let effect = |named: &[bool]| -> [f64; 3] {
            let gone = effects.iter().zip(named).filter(|(_, named)| **named);
            gone.fold([0.0; 3], |sum, (effect, _)| std::array::from_fn(|at| sum[at] + effect[at]))
        };
        let product = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let named = [false, true, false, true, false, false];
        let units: Vec<_> = (0..6).collect();
        let toggled = units.iter().map(|&unit| {
            let mut other = named.to_vec();
            problem.tree.toggle(&mut other, unit);
            effect(&other)
        });
        let all: Vec<_> = std::iter::once(effect(&named)).chain(toggled).collect();
        let products = all.iter().flat_map(|&a| all.iter().map(move |&b| product(a, b))).collect();
        let local = Neighbourhood::new(&problem, &named, units, products);
        let mut found = Vec::new();
        local.extend(0, &mut Vec::new(), &mut found);
        assert!(found.len() > 20, "{}", found.len());
        for (predicted, other) in found {
            let measured = product(effect(&other), effect(&other));
            assert!((predicted - measured).abs() < 1e-9, "{other:?}: {predicted} {measured}");
        }
        let exchanges = local.exchanges(100, &BTreeMap::new());
        assert_eq!(exchanges.iter().collect::<BTreeSet<_>>().len(), exchanges.len());
    }
}
