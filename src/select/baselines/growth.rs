//! A selection that grows step by step, for greedy solvers.

use crate::select::problem::{SelectionProblem, ToggleEffect};

/// Takes the step of least `key` repeatedly until every budget is met. The key is also given the budgets not yet met.
pub(in crate::select) fn greedily(
    problem: &SelectionProblem,
    key: impl Fn(&ToggleEffect, &[usize]) -> f64,
) -> Vec<bool> {
    let mut named = problem.least();
    loop {
        let missing = |&place: &usize| problem.budgets[place].saved(&named) < problem.budgets[place].needed;
        let open: Vec<_> = (0..problem.budgets.len()).filter(missing).collect();
        if open.is_empty() {
            return named;
        }
        let may_go =
            |&unit: &usize| !problem.tree.is_gone(&named, unit) && problem.rules.goes(unit) != Some(false);
        let steps = (0..named.len()).filter(may_go).map(|unit| problem.toggled(&named, unit));
        let useful = steps.filter(|step| open.iter().any(|&place| step.saved[place] > 0));
        let feasible = useful.filter(|step| {
            let mut other = named.clone();
            problem.tree.toggle(&mut other, step.unit);
            problem.rules.allow(&problem.tree, &other)
        });
        let best = feasible.min_by(|a, b| key(a, &open).total_cmp(&key(b, &open)));
        let best = best.expect("`SelectionProblem::check` found the budgets reachable").unit;
        problem.tree.toggle(&mut named, best);
    }
}
