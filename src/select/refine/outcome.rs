//! A selection takes over the units that its refinement found.

use std::collections::BTreeSet;

use crate::base::UnitId;
use crate::score::Scores;
use crate::select::comparison::ADDITIVE;
use crate::select::error::SelectError;
use crate::select::request::SelectionRequest;
use crate::select::selection::{Baseline, Predicted, Refinement, Selection};
use crate::select::solver::Solution;

impl Selection {
    /// Replaces the units by those that a refinement of `request` found.
    pub fn apply_refinement(
        &mut self,
        scores: &Scores,
        request: &SelectionRequest<'_>,
        (removed, refinement): (BTreeSet<UnitId>, Refinement),
    ) -> Result<(), SelectError> {
        let problem = request.problem(scores)?;
        let solution = Solution {
            named: problem.named(&removed),
            bound: Some(self.predicted.bound),
            nodes: self.predicted.nodes,
        };
        self.predicted = Predicted::of(scores, request.criterion, &problem, &removed, &solution);
        self.removed_parameters = scores.parameters(&removed);
        self.ratio_reached = self.removed_parameters as f64 / self.unet_parameters as f64;
        for (spent, budget) in self.budgets.iter_mut().zip(&problem.budgets) {
            spent.reached = budget.reached(&solution.named);
        }
        self.removed = problem.in_walk_order(&removed);
        // The first candidate is the paper's selection.
        let paper = &refinement.candidates[0];
        if paper.removed != self.removed && self.baselines.iter().all(|one| one.name != ADDITIVE) {
            let (removed, removed_parameters) = (paper.removed.clone(), paper.removed_parameters);
            self.baselines.insert(0, Baseline { name: ADDITIVE.to_owned(), removed, removed_parameters });
        }
        self.refinement = Some(refinement);
        Ok(())
    }
}
