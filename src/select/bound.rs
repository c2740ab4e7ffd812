//! A lower bound on the additive loss of any plan: the certificate that a selection is as good as can be.
//!
//! It is the linear relaxation of the multiple-choice knapsack (Sinha and Zoltners 1979), in covering
//! form: along each group's lower convex hull, the cheapest slopes first, the last one taken in part.
//! Where nothing was taken in part, the bound *is* the optimum.

use super::problem::{Group, Problem};

/// The least loss at which a fractional removal reaches `needed`; infinite where nothing reaches it.
pub fn lower_bound(problem: &Problem, needed: u64) -> f64 {
    let mut loss = 0.0;
    let mut missing = needed as f64;
    let mut steps = Vec::new();
    for group in &problem.groups {
        let (start, hull) = hull(group);
        missing -= start.0;
        loss += start.1;
        steps.extend(hull);
    }
    steps.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    for (weight, cost) in steps {
        if missing <= 0.0 {
            return loss;
        }
        let part = (missing / weight).min(1.0);
        loss += part * cost;
        missing -= weight;
    }
    if missing > 0.0 { f64::INFINITY } else { loss }
}

/// A group's cheapest choice, and the steps (weight, loss) of rising slope up from it.
fn hull(group: &Group) -> ((f64, f64), Vec<(f64, f64)>) {
    let choices = group.choices();
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for choice in choices.iter().rev() {
        let point = (choice.weight as f64, choice.loss);
        while let [.., before, last] = corners.as_slice()
            && (last.1 - before.1) * (point.0 - last.0) >= (point.1 - last.1) * (last.0 - before.0)
        {
            corners.pop();
        }
        corners.push(point);
    }
    (corners[0], corners.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1)).collect())
}
