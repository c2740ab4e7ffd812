//! Which units to toggle around a selection, and which toggles to make at once.

use std::collections::BTreeMap;

use super::Problem;

/// Toggles in one exchange, at most: beyond, the first order says little.
const AT_ONCE: usize = 4;

/// Units of the exchanges that the surrogate likes best around `named`, without those in `but`.
pub(super) fn likely(problem: &Problem, named: &[bool], most: usize, but: &[usize]) -> Vec<usize> {
    let n = problem.units.len();
    let open: Vec<_> = (0..n).filter(|&unit| problem.rules.goes(unit).is_none()).collect();
    let toggles: BTreeMap<_, _> = open.iter().map(|&unit| (unit, problem.toggled(named, unit))).collect();
    let mut moves: Vec<(f64, Vec<usize>)> = Vec::new();
    let mut consider = |units: Vec<usize>| {
        let toggles: Vec<_> = units.iter().map(|unit| &toggles[unit]).collect();
        if problem.still_reaches(named, &toggles) {
            moves.push((toggles.iter().map(|toggle| toggle.value).sum(), units));
        }
    };
    for (place, &first) in open.iter().enumerate() {
        consider(vec![first]);
        for (next, &second) in open.iter().enumerate().skip(place + 1) {
            consider(vec![first, second]);
            for &third in &open[next + 1..] {
                consider(vec![first, second, third]);
            }
        }
    }
    moves.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut units = Vec::new();
    for unit in moves.into_iter().flat_map(|(_, units)| units) {
        if units.len() < most && !units.contains(&unit) && !but.contains(&unit) {
            units.push(unit);
        }
    }
    units
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
        found.dedup_by(|a, b| a.1 == b.1);
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
