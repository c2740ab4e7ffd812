//! Selections worth measuring: the optima of several objectives, of somewhat more than was asked for, and where one of the
//! dearest units stays.
//!
//! No surrogate wins on every model and ratio (ours): `additive` ignores what units share, `gram` believes that effects stay as
//! they are when others are gone, and mixtures lie between. What they propose is measured, and the best is kept.

use crate::score::Scores;
use crate::select::error::SelectError;
use crate::select::exact::optimum;
use crate::select::problem::{Objective, SelectionProblem};
use crate::select::request::SelectionRequest;
use crate::select::selection::Candidate;

/// Shares of `1' G 1` in the objectives: 0 is the criterion's sum, and between, the rest is the sum of the diagonal.
const MIXTURES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// How much more than asked is tried: another weight can be reached with quite other units.
const MORE: [f64; 3] = [1.0, 1.02, 1.05];
/// So many of an optimum's dearest units are kept in turn: what replaces them may lose less than it seems to.
const KEPT: usize = 5;
/// Sub-problems for each: a selection is wanted here, not a proof.
const NODES: usize = 500;

/// The candidates of a request, each once, the additive optimum first; `chosen` is what the request's own solver says.
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
                // Scores of another criterion are on another scale: the matrix is mixed with its own diagonal.
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

/// The optima where one of the dearest units of `best` stays.
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
