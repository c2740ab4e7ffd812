//! Lower bounds from a relaxed problem, in which units may be removed in part.
//!
//! Let `f(x) = x' Q x + c' x` be convex and equal to the objective where every `x` is 0 or 1, and let each budget `k` ask
//! `a_k' x >= 1`. For any shares `x` and any prices `p >= 0` of the budgets,
//! `f(x) - grad f(x)' x + sum p + min_y (grad f(x) - sum_k p_k a_k)' y` lies below the objective of every selection `y` that
//! meets the budgets; the minimum over feasible `y` is exact. So any search for good shares and prices gives valid bounds.

use super::convex::linear_part;
use crate::select::problem::{Rules, SelectionProblem};

/// The penalty for missing a whole budget, relative to the objective; any value gives valid bounds.
pub(super) const PENALTY: f64 = 20.0;

/// The convex function and the budgets.
pub(super) struct Relaxation<'a> {
    pub(super) problem: &'a SelectionProblem,
    /// `2 Q`, row by row.
    pub(super) curvature: Vec<f64>,
    /// `c`.
    pub(super) linear: Vec<f64>,
    /// `a_k`.
    pub(super) weights: Vec<Vec<f64>>,
    /// The penalty for missing a budget.
    pub(super) penalty: f64,
}

/// The state of a search.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// The share of each unit that is named.
    pub(super) named: Vec<f64>,
    /// The price of each budget that needs anything.
    pub(super) prices: Vec<f64>,
}

impl<'a> Relaxation<'a> {
    /// `worth` weighs the units whose loss should be in the linear part; `scale` is about the size of the objective.
    pub(super) fn new(problem: &'a SelectionProblem, worth: &[f64], scale: f64) -> Self {
        let n = problem.units.len();
        let (mut curvature, mut linear) = (vec![0.0; n * n], problem.losses.clone());
        if !problem.gram.is_empty() {
            let mut added = added_effects(problem);
            let part = linear_part(&added, worth);
            (0..n).for_each(|unit| added[unit * n + unit] -= part[unit]);
            let inside: Vec<Vec<_>> =
                (0..n).map(|unit| std::iter::once(unit).chain(problem.tree.inside(unit)).collect()).collect();
            for row in 0..n {
                linear[row] += inside[row].iter().map(|&unit| part[unit]).sum::<f64>();
                for column in 0..n {
                    let pairs =
                        inside[row].iter().flat_map(|a| inside[column].iter().map(move |b| a * n + b));
                    curvature[row * n + column] = 2.0 * pairs.map(|pair| added[pair]).sum::<f64>();
                }
            }
        }
        let budgets = problem.budgets.iter().filter(|budget| budget.needed > 0);
        let weights = budgets
            .map(|budget| budget.weights.iter().map(|&one| one as f64 / budget.needed as f64).collect())
            .collect();
        Self { problem, curvature, linear, weights, penalty: PENALTY * scale }
    }

    /// The start of a search.
    pub(super) fn start(&self, rules: &Rules) -> Shares {
        let mut named = vec![0.0; self.linear.len()];
        self.cheapest(&self.linear, rules, &mut named);
        Shares { named, prices: vec![0.0; self.weights.len()] }
    }

    /// The least `costs' y` over feasible `y`, and that `y`.
    pub(super) fn cheapest(&self, costs: &[f64], rules: &Rules, y: &mut [f64]) -> f64 {
        let tree = &self.problem.tree;
        // For each unit: the least cost of its inside if it is kept, and the part that must then be kept if all would be removed.
        let mut stays = vec![0.0; costs.len()];
        let mut left = vec![None; costs.len()];
        let mut goes = vec![false; costs.len()];
        for unit in (0..costs.len()).rev() {
            let parts = tree.parts(unit);
            stays[unit] = parts.iter().map(|&part| if goes[part] { costs[part] } else { stays[part] }).sum();
            if !parts.is_empty() && parts.iter().all(|&part| goes[part]) {
                let regret = |part: usize| match rules.goes(part) {
                    Some(true) => f64::INFINITY,
                    _ => stays[part] - costs[part],
                };
                let least = parts.iter().copied().min_by(|&a, &b| regret(a).total_cmp(&regret(b)));
                left[unit] = least;
                stays[unit] += least.map_or(0.0, regret);
            }
            goes[unit] = rules.goes(unit).unwrap_or(costs[unit] < stays[unit]);
        }
        for unit in 0..costs.len() {
            let around = tree.around(unit).any(|around| goes[around]);
            y[unit] = f64::from(u8::from(goes[unit] && !around));
            if let (Some(part), false) = (left[unit], goes[unit] || around) {
                goes[part] = false;
            }
        }
        tree.roots().map(|root| if goes[root] { costs[root] } else { stays[root] }).sum()
    }

    /// The share of each unit that is removed, by itself or with a unit around it.
    pub(super) fn gone(&self, shares: &Shares) -> Vec<f64> {
        let tree = &self.problem.tree;
        let gone =
            |unit| shares.named[unit] + tree.around(unit).map(|around| shares.named[around]).sum::<f64>();
        (0..shares.named.len()).map(gone).collect()
    }
}

/// The Gram matrix of what each unit adds to the effects of its parts. In these terms the parts of a removed unit are removed
/// too, and each of them is 0 or 1 independently.
fn added_effects(problem: &SelectionProblem) -> Vec<f64> {
    let n = problem.units.len();
    let mut gram = problem.gram.clone();
    for unit in 0..n {
        for &part in problem.tree.parts(unit) {
            (0..n).for_each(|other| gram[unit * n + other] -= problem.gram[part * n + other]);
        }
    }
    let rows = gram.clone();
    for unit in 0..n {
        for &part in problem.tree.parts(unit) {
            (0..n).for_each(|other| gram[other * n + unit] -= rows[other * n + part]);
        }
    }
    gram
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
