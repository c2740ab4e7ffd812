//! Selections worth measuring: the optima of several objectives, with slightly larger budgets, and with one of the most
//! expensive units kept.
//!
//! In our measurements no surrogate is best for every model and ratio: `additive` ignores interactions between units, `gram`
//! assumes that effects do not change when other units are removed, and mixtures lie between. All proposals are measured, and
//! the best is used.

use crate::score::Scores;
use crate::select::error::SelectError;
use crate::select::exact::optimum;
use crate::select::problem::{Objective, SelectionProblem};
use crate::select::request::SelectionRequest;
use crate::select::selection::Candidate;

/// Shares of `1' G 1` in the objectives: 0 is the criterion's sum; for mixtures the rest is the sum of the diagonal.
const MIXTURES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Factors on the budgets: a slightly larger budget can lead to very different units.
const MORE: [f64; 3] = [1.0, 1.02, 1.05];
/// The number of an optimum's most expensive units that are kept in turn: their replacements may lose less than predicted.
const KEPT: usize = 5;
/// Sub-problems per optimum: a good selection is enough, a proof is not needed.
const NODES: usize = 500;

/// The candidates for a request without duplicates, the additive optimum first; `chosen` is the result of its own solver.
pub(super) fn portfolio(
    scores: &Scores,
    request: &SelectionRequest<'_>,
    chosen: (&str, Vec<bool>),
) -> Result<Vec<(String, Vec<bool>)>, SelectError> {
    let plain = request.problem(scores)?;
    let mut candidates: Vec<(String, Vec<bool>)> = Vec::new();
    let mut add = |name: String, named: Vec<bool>| {
        if candidates.iter().all(|(_, other)| *other != named) {
            candidates.push((name, named));
        }
    };
    for more in MORE {
        let mut budgets = plain.budgets.clone();
        for budget in &mut budgets {
            budget.needed = (more * budget.needed as f64).ceil() as u64;
        }
        for gram in MIXTURES {
            if gram > 0.0 && scores.gram.is_none() {
                continue;
            }
            let objective = Objective { criterion: request.criterion, gram };
            let mut mixed = SelectionProblem::new(scores, &objective)?;
            if let Some(matrix) = scores.gram.as_ref().filter(|_| gram > 0.0) {
                // Scores of other criteria have other scales, so the matrix is mixed with its own diagonal.
                let diagonal = (0..mixed.losses.len()).map(|unit| (1.0 - gram) * matrix.at(unit, unit));
                mixed.losses = diagonal.collect();
            }
            let problem = SelectionProblem { budgets: budgets.clone(), rules: plain.rules.clone(), ..mixed };
            if problem.check().is_err() {
                continue;
            }
            let best = optimum(&problem, NODES).named;
            add(name(gram, more), best.clone());
            if more == 1.0 && (gram == 0.0 || gram == 1.0) {
                for (unit, other) in without_dearest(&problem, &best) {
                    add(format!("{}, keeping {}", name(gram, more), problem.units[unit]), other);
                }
            }
        }
    }
    add(chosen.0.to_owned(), chosen.1);
    Ok(candidates)
}

/// The optima that keep one of the most expensive units of `best`.
fn without_dearest(problem: &SelectionProblem, best: &[bool]) -> Vec<(usize, Vec<bool>)> {
    let mut named: Vec<_> = (0..best.len()).filter(|&unit| best[unit]).collect();
    let saved = |unit: usize| problem.toggled(best, unit).value;
    named.sort_by(|&a, &b| saved(a).total_cmp(&saved(b)));
    let kept = named.into_iter().take(KEPT).filter_map(|unit| {
        let mut problem = problem.clone();
        problem.keep(unit).ok()?;
        problem.check().ok()?;
        Some((unit, optimum(&problem, NODES).named))
    });
    kept.collect()
}

fn name(gram: f64, more: f64) -> String {
    let objective = match gram {
        0.0 => "additive".to_owned(),
        1.0 => "gram".to_owned(),
        share => format!("additive-and-gram-{share}"),
    };
    if more > 1.0 { format!("{objective}+{:.0}%", 100.0 * (more - 1.0)) } else { objective }
}

impl Candidate {
    pub(super) fn new(
        scores: &Scores,
        criterion: &str,
        name: String,
        problem: &SelectionProblem,
        named: &[bool],
        measured: f64,
    ) -> Self {
        let removed = problem.removed(named);
        Self {
            name,
            removed_parameters: scores.parameters(&removed),
            additive: scores.additive(&removed, criterion),
            gram: scores.gram.as_ref().map(|gram| gram.joint(&removed)),
            removed: problem.in_walk_order(&removed),
            measured,
        }
    }
}
