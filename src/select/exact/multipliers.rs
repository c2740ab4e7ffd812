//! The search for shares and prices that give a relaxation a high bound: coordinate steps on the augmented Lagrangian
//! (Hestenes 1969; Powell 1969), and Frank and Wolfe's method (1956) for units with parts.

use super::relaxation::{PENALTY, Relaxation, Shares, dot};
use crate::select::problem::Rules;

/// The largest number of sweeps over all units for one bound.
const SWEEPS: usize = 120;
/// Sweeps between two computations of the bound.
const BETWEEN: usize = 6;
/// The search ends when the bound gains less than this, relative to the objective.
const PROGRESS: f64 = 2e-4;

/// A lower bound for selections under `rules`; infinite if there are none. The search continues from `shares` and ends
/// when the bound reaches `enough`.
pub(super) fn lower_bound(
    relaxation: &Relaxation<'_>,
    rules: &Rules,
    shares: &mut Shares,
    enough: f64,
) -> f64 {
    let mut best = f64::NEG_INFINITY;
    let mut search = MultiplierSearch::new(relaxation, rules, shares);
    for sweep in 1..=SWEEPS {
        search.sweep();
        if sweep % BETWEEN == 0 {
            let bound = search.bound();
            let gain = bound - best;
            best = best.max(bound);
            if best >= enough || gain < PROGRESS * relaxation.penalty / PENALTY {
                break;
            }
        }
    }
    search.end();
    best
}

/// A search in progress.
struct MultiplierSearch<'a> {
    relaxation: &'a Relaxation<'a>,
    rules: &'a Rules,
    shares: &'a mut Shares,
    /// `grad f`.
    gradient: Vec<f64>,
    /// `a_k' x`.
    saved: Vec<f64>,
    /// Scratch space for a feasible selection.
    target: Vec<f64>,
}

impl<'a> MultiplierSearch<'a> {
    fn new(relaxation: &'a Relaxation<'a>, rules: &'a Rules, shares: &'a mut Shares) -> Self {
        let n = relaxation.linear.len();
        let tree = &relaxation.problem.tree;
        // Shares from a search under other rules are made feasible, one outermost unit after the other.
        for root in tree.roots() {
            let feasible = |unit: usize| match rules.goes(unit) {
                Some(false) => shares.named[unit] == 0.0,
                Some(true) => {
                    tree.around(unit).chain([unit]).map(|one| shares.named[one]).sum::<f64>() == 1.0
                }
                None => true,
            };
            if !std::iter::once(root).chain(tree.inside(root)).all(feasible) {
                let mut target = vec![0.0; n];
                relaxation.cheapest(&relaxation.linear, rules, &mut target);
                for unit in std::iter::once(root).chain(tree.inside(root)) {
                    shares.named[unit] = target[unit];
                }
            }
        }
        let x = &shares.named;
        let row = |unit: usize| dot(&relaxation.curvature[unit * n..][..n], x) + relaxation.linear[unit];
        let gradient = (0..n).map(row).collect();
        let saved = relaxation.weights.iter().map(|weights| dot(weights, x)).collect();
        Self { relaxation, rules, shares, gradient, saved, target: vec![0.0; n] }
    }

    /// Moves every unit, then every unit with parts as a whole, then the prices.
    fn sweep(&mut self) {
        let tree = &self.relaxation.problem.tree;
        for unit in tree.leaves().filter(|&unit| self.rules.goes(unit).is_none()) {
            let room = self.room(unit);
            let (slope, bend) = self.along(&[(unit, 1.0)]);
            let now = self.shares.named[unit];
            let best = if bend > 0.0 {
                now - slope / bend
            } else if slope < 0.0 {
                room
            } else {
                0.0
            };
            let step = best.clamp(0.0, room) - now;
            self.step(&[(unit, 1.0)], step);
        }
        let costs: Vec<_> = (0..self.gradient.len()).map(|unit| self.slope(unit)).collect();
        let mut target = std::mem::take(&mut self.target);
        self.relaxation.cheapest(&costs, self.rules, &mut target);
        for root in tree.roots().filter(|&root| !tree.parts(root).is_empty()) {
            let direction: Vec<_> = std::iter::once(root)
                .chain(tree.inside(root))
                .map(|unit| (unit, target[unit] - self.shares.named[unit]))
                .filter(|(_, change)| *change != 0.0)
                .collect();
            let (slope, bend) = self.along(&direction);
            if slope < 0.0 {
                self.step(&direction, if bend > 0.0 { (-slope / bend).min(1.0) } else { 1.0 });
            }
        }
        self.target = target;
        for budget in 0..self.saved.len() {
            self.shares.prices[budget] = self.price(budget);
        }
    }

    /// The largest share of a unit without parts: shares of the units around it count too, and part of its parent must be kept.
    fn room(&self, unit: usize) -> f64 {
        let tree = &self.relaxation.problem.tree;
        let named = &self.shares.named;
        let Some(parent) = tree.parent(unit) else { return 1.0 };
        let free = 1.0 - tree.around(unit).map(|around| named[around]).sum::<f64>();
        let parts = tree.parts(parent);
        let others: f64 = parts.iter().filter(|&&part| part != unit).map(|&part| named[part]).sum();
        free.min((parts.len() - 1) as f64 * free - others).max(0.0)
    }

    /// The marginal price of a budget.
    fn price(&self, budget: usize) -> f64 {
        (self.shares.prices[budget] + self.relaxation.penalty * (1.0 - self.saved[budget])).max(0.0)
    }

    /// The slope of the augmented Lagrangian at one unit.
    fn slope(&self, unit: usize) -> f64 {
        let weights = self.relaxation.weights.iter().enumerate();
        self.gradient[unit] - weights.map(|(budget, weights)| self.price(budget) * weights[unit]).sum::<f64>()
    }

    /// Slope and curvature along a direction.
    fn along(&self, direction: &[(usize, f64)]) -> (f64, f64) {
        let n = self.gradient.len();
        let slope = direction.iter().map(|&(unit, change)| change * self.slope(unit)).sum();
        let mut bend = 0.0;
        for &(row, a) in direction {
            let row = &self.relaxation.curvature[row * n..][..n];
            bend += direction.iter().map(|&(column, b)| a * b * row[column]).sum::<f64>();
        }
        for (budget, weights) in self.relaxation.weights.iter().enumerate() {
            if self.price(budget) > 0.0 {
                let change: f64 = direction.iter().map(|&(unit, change)| change * weights[unit]).sum();
                bend += self.relaxation.penalty * change * change;
            }
        }
        (slope, bend)
    }

    fn step(&mut self, direction: &[(usize, f64)], length: f64) {
        if length == 0.0 {
            return;
        }
        let n = self.gradient.len();
        for &(unit, change) in direction {
            let change = length * change;
            self.shares.named[unit] += change;
            let row = &self.relaxation.curvature[unit * n..][..n];
            self.gradient.iter_mut().zip(row).for_each(|(gradient, value)| *gradient += change * value);
            for (saved, weights) in self.saved.iter_mut().zip(&self.relaxation.weights) {
                *saved += change * weights[unit];
            }
        }
    }

    /// The bound at these shares and prices.
    fn bound(&mut self) -> f64 {
        let x = &self.shares.named;
        // f(x) - grad f(x)' x is -x' Q x.
        let bent = dot(&self.gradient, x) - dot(&self.relaxation.linear, x);
        let costs: Vec<_> = (0..x.len()).map(|unit| self.slope(unit)).collect();
        let prices: f64 = (0..self.saved.len()).map(|budget| self.price(budget)).sum();
        prices - 0.5 * bent + self.relaxation.cheapest(&costs, self.rules, &mut self.target)
    }

    /// Clamps shares that rounding has moved outside 0 to 1.
    fn end(self) {
        self.shares.named.iter_mut().for_each(|share| *share = share.clamp(0.0, 1.0));
    }
}
