//! The optimum of a problem with a Gram matrix or several budgets, or a selection with a proven gap.
//!
//! Branch and bound (Land and Doig 1960) on whether a unit is removed, the node of the least bound first. Bounds come from
//! [`Relaxation`], and selections from rounding its shares and from exchanges. The search is limited by nodes and never by
//! time, because a selection must not depend on the speed of the machine.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::multipliers::lower_bound;
use super::relaxation::{Relaxation, Shares};
use crate::select::problem::{Rules, SelectionProblem};
use crate::select::solver::Solution;

/// Rounds of fitting the linear part to the shares that the relaxation leaves between 0 and 1.
const ROUNDS: usize = 4;
/// A value within this relative distance of its bound counts as the optimum.
const EXACT: f64 = 1e-7;

/// A set of rules, with a bound for the selections under them.
struct Node {
    bound: f64,
    rules: Rules,
    shares: Shares,
}

/// Solves `problem` in at most `most` nodes, starting from a selection that meets the budgets.
pub(super) fn solve(problem: &SelectionProblem, start: Vec<bool>, most: usize) -> Solution {
    let mut best = Best { problem, value: problem.value(&start), named: start };
    best.search_around();
    let (relaxation, root) = root(problem, &mut best);
    let mut open = BinaryHeap::from([root]);
    let mut nodes = 1;
    let bound = loop {
        // Nodes that were cut off cannot improve on the best by more than rounding.
        let Some(node) = open.pop().filter(|node| !best.is_beaten_by(node.bound)) else { break best.value };
        if nodes >= most {
            break node.bound;
        }
        let Some(unit) = unit_to_decide(problem, &relaxation, &node) else {
            // Every unit is decided: the rules are one selection.
            best.offer(Some(node.rules.least(&problem.tree)));
            continue;
        };
        for goes in [true, false] {
            let mut rules = node.rules.clone();
            if rules.set(&problem.tree, unit, goes).is_err() || !can_reach(problem, &rules) {
                continue;
            }
            nodes += 1;
            let mut shares = node.shares.clone();
            let found = lower_bound(&relaxation, &rules, &mut shares, best.value).max(node.bound);
            best.offer(rounded(problem, &relaxation, &rules, &shares));
            if !best.is_beaten_by(found) {
                open.push(Node { bound: found, rules, shares });
            }
        }
    };
    Solution { named: best.named, bound: Some(bound), nodes }
}

/// The relaxation with the best linear part found, and the first node.
fn root<'a>(problem: &'a SelectionProblem, best: &mut Best<'_>) -> (Relaxation<'a>, Node) {
    let n = problem.units.len();
    let rules = problem.rules.clone();
    let mut bound = |worth: &[f64]| {
        let relaxation = Relaxation::new(problem, worth, best.value.abs());
        let mut shares = relaxation.start(&rules);
        let bound = lower_bound(&relaxation, &rules, &mut shares, f64::INFINITY);
        if let Some(mut named) = rounded(problem, &relaxation, &rules, &shares) {
            problem.improve(&mut named);
            best.offer(Some(named));
        }
        (relaxation, Node { bound, rules: rules.clone(), shares })
    };
    let mut worth = vec![0.25; n];
    let mut kept = bound(&worth);
    let mut last = kept.0.gone(&kept.1.shares);
    for round in 1..ROUNDS {
        if problem.gram.is_empty() {
            break;
        }
        // A larger linear part makes fractional shares more expensive; averaging over rounds converges (Brown 1951).
        for (worth, share) in worth.iter_mut().zip(&last) {
            *worth += (share * (1.0 - share) - *worth) / round as f64;
        }
        let found = bound(&worth);
        last = found.0.gone(&found.1.shares);
        if found.1.bound > kept.1.bound {
            kept = found;
        }
    }
    kept
}

/// The unit whose share is furthest from 0 and 1, weighted by its cost.
fn unit_to_decide(problem: &SelectionProblem, relaxation: &Relaxation<'_>, node: &Node) -> Option<usize> {
    let n = problem.units.len();
    let gone = relaxation.gone(&node.shares);
    let cost = |unit: usize| {
        let together = problem.gram.get(unit * n + unit).copied().unwrap_or(0.0);
        (problem.losses[unit] + together).abs()
    };
    let doubt = |unit: usize| {
        // If all shares are 0 or 1, the most expensive unit is as good as any.
        (gone[unit] * (1.0 - gone[unit])).max(1e-9) * cost(unit).max(f64::MIN_POSITIVE)
    };
    let open = (0..n).filter(|&unit| node.rules.goes(unit).is_none());
    open.max_by(|&a, &b| doubt(a).total_cmp(&doubt(b)))
}

/// Whether the budgets may be reachable under `rules`; an optimistic check that also counts the shells of kept units.
fn can_reach(problem: &SelectionProblem, rules: &Rules) -> bool {
    let mut most: Vec<_> = (0..problem.units.len()).map(|unit| rules.goes(unit) != Some(false)).collect();
    problem.tree.settle(&mut most);
    problem.reaches(&most)
}

/// The selection of the units with the largest shares.
fn rounded(
    problem: &SelectionProblem,
    relaxation: &Relaxation<'_>,
    rules: &Rules,
    shares: &Shares,
) -> Option<Vec<bool>> {
    let gone = relaxation.gone(shares);
    let mut order: Vec<_> = (0..gone.len()).collect();
    order.sort_by(|&a, &b| gone[b].total_cmp(&gone[a]));
    problem.fill(rules, order)
}

/// The best selection so far.
struct Best<'a> {
    problem: &'a SelectionProblem,
    named: Vec<bool>,
    value: f64,
}

impl Best<'_> {
    /// Whether a bound leaves nothing to improve.
    fn is_beaten_by(&self, bound: f64) -> bool {
        bound >= self.value - EXACT * self.value.abs()
    }

    /// Takes over a better selection, and improves it by exchanges.
    fn offer(&mut self, named: Option<Vec<bool>>) {
        let Some(named) = named else { return };
        let value = self.problem.value(&named);
        if value < self.value {
            (self.named, self.value) = (named, value);
            self.search_around();
        }
    }

    fn search_around(&mut self) {
        self.problem.improve(&mut self.named);
        self.value = self.problem.value(&self.named);
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Node {}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    /// The heap's greatest is the node of the least bound.
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound)
    }
}
