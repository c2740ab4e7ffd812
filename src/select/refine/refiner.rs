//! A selection made better by measuring: the best of a portfolio, then exchanges judged by the real joint loss.
//!
//! Around the best selection `R` so far, single units are toggled and measured together with `R`, so that all products
//! `E mean(d d')` of their effects are known. To first order around `R` a few toggles `S` at once then give the effect
//! `d_R + sum_S (d_u - d_R)`: a Gram matrix anchored where it is used, not at the whole model. The exchanges that it likes
//! best are measured, and the best of all is the next `R`. (Ours.)

use std::collections::{BTreeMap, BTreeSet};

use super::portfolio::portfolio;
use super::proposals::{Neighbourhood, likely};
use crate::base::UnitId;
use crate::score::{ScoreError, Scores};
use crate::select::error::SelectError;
use crate::select::problem::{Objective, SelectionProblem};
use crate::select::request::SelectionRequest;
use crate::select::selection::{Candidate, Improvement, Refinement, Selection};

/// Toggles around a selection, at most; their products cost memory and walks, and few units matter at one ratio.
const TOGGLES: usize = 20;
/// Of the evaluations left, the share that goes into toggles.
const SHARE: f64 = 0.7;
/// Exchanges measured before the next look around.
const EXCHANGES: usize = 8;

/// Measures sets of units: `E mean(d_R d_S)` of each two, row by row.
pub type Measure<'a> = dyn FnMut(&[BTreeSet<UnitId>]) -> Result<Vec<f64>, ScoreError> + 'a;

/// A refinement that can be measured: a request whose portfolio is known.
pub struct Refiner<'a> {
    scores: &'a Scores,
    criterion: &'a str,
    problem: SelectionProblem,
    candidates: Vec<(String, Vec<bool>)>,
}

impl<'a> Refiner<'a> {
    /// Of the `selection` made for `request`.
    pub fn new(
        scores: &'a Scores,
        request: &SelectionRequest<'a>,
        selection: &Selection,
    ) -> Result<Self, SelectError> {
        let mut problem = request.problem(scores)?;
        let chosen = (selection.solver.as_str(), problem.named(&selection.removed()));
        let candidates = portfolio(scores, request, chosen)?;
        if scores.gram.is_some() {
            // What to try is best told by what units share.
            problem.losses.fill(0.0);
            problem.gram = Objective { criterion: request.criterion, gram: 1.0 }.gram(scores)?;
        }
        Ok(Self { scores, criterion: request.criterion, problem, candidates })
    }

    /// Measures the portfolio, then exchanges, with at most so many further `evaluations`. Returns the units that go.
    pub fn refine(
        &self,
        evaluations: usize,
        measure: &mut Measure<'_>,
    ) -> Result<(BTreeSet<UnitId>, Refinement), ScoreError> {
        let mut search = ExchangeSearch {
            problem: &self.problem,
            measure,
            known: BTreeMap::new(),
            left: evaluations,
            used: 0,
            history: Vec::new(),
        };
        let sets: Vec<_> = self.candidates.iter().map(|(_, named)| named.clone()).collect();
        search.look(&sets)?;
        let candidates = self.candidates.iter().map(|(name, named)| {
            let measured = search.known[named];
            Candidate::new(self.scores, self.criterion, name.clone(), &self.problem, named, measured)
        });
        let candidates = candidates.collect();
        search.used = 0;
        search.left = evaluations;
        let best = search.run()?;
        let refinement = Refinement {
            candidates,
            allowed: evaluations,
            evaluations: search.used,
            measured: search.known[&best],
            history: search.history,
        };
        Ok((self.problem.removed(&best), refinement))
    }
}

struct ExchangeSearch<'a, 'b> {
    problem: &'a SelectionProblem,
    measure: &'a mut Measure<'b>,
    /// Every selection that was measured.
    known: BTreeMap<Vec<bool>, f64>,
    left: usize,
    used: usize,
    history: Vec<Improvement>,
}

impl ExchangeSearch<'_, '_> {
    fn run(&mut self) -> Result<Vec<bool>, ScoreError> {
        let mut best = self.best();
        // Units that were toggled around this very selection.
        let mut looked: Vec<usize> = Vec::new();
        while self.left > 2 {
            let most = ((SHARE * self.left as f64).ceil() as usize).min(TOGGLES).min(self.left - 1);
            let units = likely(self.problem, &best, most, &looked);
            if units.is_empty() {
                break;
            }
            let toggled = units.iter().map(|&unit| {
                let mut named = best.clone();
                self.problem.tree.toggle(&mut named, unit);
                named
            });
            let sets: Vec<_> = std::iter::once(best.clone()).chain(toggled).collect();
            let products = self.look(&sets)?;
            looked.extend(&units);
            let neighbourhood = Neighbourhood::new(self.problem, &best, units, products);
            let proposals = neighbourhood.exchanges(EXCHANGES.min(self.left), &self.known);
            if !proposals.is_empty() {
                self.look(&proposals)?;
            }
            let better = self.best();
            if better != best {
                self.note(&best, &better);
                best = better;
                looked.clear();
            }
        }
        Ok(best)
    }

    /// Measures selections and returns their products.
    fn look(&mut self, selections: &[Vec<bool>]) -> Result<Vec<f64>, ScoreError> {
        let sets: Vec<_> = selections.iter().map(|named| self.problem.removed(named)).collect();
        let products = (self.measure)(&sets)?;
        for (place, named) in selections.iter().enumerate() {
            // The first measurement stays: another chunking may differ in its last digits.
            self.known.entry(named.clone()).or_insert(products[place * sets.len() + place]);
        }
        self.used += sets.len();
        self.left = self.left.saturating_sub(sets.len());
        Ok(products)
    }

    /// The best lawful selection that was measured.
    fn best(&self) -> Vec<bool> {
        let problem = self.problem;
        let lawful = |named: &&Vec<bool>| problem.reaches(named) && problem.rules.allow(&problem.tree, named);
        let known = self.known.keys().filter(lawful);
        let best = known.min_by(|a, b| self.known[*a].total_cmp(&self.known[*b]));
        best.expect("every candidate is lawful").clone()
    }

    fn note(&mut self, before: &[bool], after: &[bool]) {
        let (before_gone, after_gone) = (self.problem.removed(before), self.problem.removed(after));
        self.history.push(Improvement {
            evaluations: self.used,
            measured: self.known[after],
            gone: after_gone.difference(&before_gone).cloned().collect(),
            back: before_gone.difference(&after_gone).cloned().collect(),
        });
    }
}
