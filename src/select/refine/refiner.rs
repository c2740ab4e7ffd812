//! Improves a selection by measuring: the best of a portfolio, then exchanges judged by their measured joint loss.
//!
//! Single units are toggled around the best selection `R` so far and measured together with `R`, so that all products
//! `E mean(d d')` of their effects are known. To first order around `R` a few toggles `S` at once then give the effect
//! `d_R + sum_S (d_u - d_R)`: a Gram matrix around the selection instead of the whole model. The exchanges with the least
//! predicted loss are measured, and the best of all is the next `R`. This method is ours.

use std::collections::{BTreeMap, BTreeSet};

use super::portfolio::portfolio;
use super::proposals::{Neighbourhood, likely};
use crate::base::UnitId;
use crate::score::{ScoreError, Scores};
use crate::select::error::SelectError;
use crate::select::problem::{Objective, SelectionProblem};
use crate::select::request::SelectionRequest;
use crate::select::selection::{Candidate, Improvement, Refinement, Selection};

/// The largest number of toggles around a selection; their products cost memory and time, and few units matter at one ratio.
const TOGGLES: usize = 20;
/// The share of the remaining evaluations that is spent on toggles.
const SHARE: f64 = 0.7;
/// Exchanges measured before the next round of toggles.
const EXCHANGES: usize = 8;

/// Measures sets of units: `E mean(d_R d_S)` for each pair, row by row.
pub type Measure<'a> = dyn FnMut(&[BTreeSet<UnitId>]) -> Result<Vec<f64>, ScoreError> + 'a;

/// A refinement that is ready to be measured: a request with its portfolio.
pub struct Refiner<'a> {
    scores: &'a Scores,
    criterion: &'a str,
    problem: SelectionProblem,
    candidates: Vec<(String, Vec<bool>)>,
}

impl<'a> Refiner<'a> {
    /// Prepares the refinement of the `selection` made for `request`.
    pub fn new(
        scores: &'a Scores,
        request: &SelectionRequest<'a>,
        selection: &Selection,
    ) -> Result<Self, SelectError> {
        let mut problem = request.problem(scores)?;
        let chosen = (selection.solver.as_str(), problem.named(&selection.removed()));
        let candidates = portfolio(scores, request, chosen)?;
        if scores.gram.is_some() {
            // Interactions between units are the best guide to what to try.
            problem.losses.fill(0.0);
            problem.gram = Objective { criterion: request.criterion, gram: 1.0 }.gram(scores)?;
        }
        Ok(Self { scores, criterion: request.criterion, problem, candidates })
    }

    /// Measures the portfolio, then exchanges, with at most `evaluations` more measurements. Returns the units to remove.
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
        // Units that were toggled around the present selection.
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
            // The first measurement is kept: in other batches the last digits may differ.
            self.known.entry(named.clone()).or_insert(products[place * sets.len() + place]);
        }
        self.used += sets.len();
        self.left = self.left.saturating_sub(sets.len());
        Ok(products)
    }

    /// The best feasible selection that was measured.
    fn best(&self) -> Vec<bool> {
        let problem = self.problem;
        let feasible =
            |named: &&Vec<bool>| problem.reaches(named) && problem.rules.allow(&problem.tree, named);
        let known = self.known.keys().filter(feasible);
        let best = known.min_by(|a, b| self.known[*a].total_cmp(&self.known[*b]));
        best.expect("every candidate is feasible").clone()
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
