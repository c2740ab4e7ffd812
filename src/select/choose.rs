//! Chooses the units that a request asks for, and describes the choice.

use std::collections::BTreeSet;

use super::comparison::baselines;
use super::error::SelectError;
use super::exact::{self, Front, bound};
use super::prediction::sampled;
use super::problem::{Budget, OBJECTIVES, SelectionProblem};
use super::request::{Method, SelectionRequest, unet_of_blocks};
use super::selection::{FORMAT, Predicted, Selection, Spent};
use super::shapes::{Fit, Layout};
use super::solver::{Solution, Solver};
use crate::backend::Random;
use crate::base::UnitId;
use crate::score::Scores;

/// A choice before it is described.
struct Chosen {
    removed: BTreeSet<UnitId>,
    /// Including those of layers that no unit stands for.
    removed_parameters: u64,
    solution: Solution,
    /// The front that it was chosen from, by the sum of scores.
    front: Front,
}

impl Selection {
    /// Chooses the units that `request` asks for.
    pub fn make(
        scores: &Scores,
        request: &SelectionRequest<'_>,
        random: &Random,
    ) -> Result<Self, SelectError> {
        let mut problem = request.problem(scores)?;
        let chosen = match request.method {
            Method::Solver(solver) => by_solver(scores, request, &problem, solver, random)?,
            Method::Fitting(fit) => fitting(scores, request, &mut problem, fit)?,
            Method::Layout(layout) => by_layout(scores, request, &mut problem, layout)?,
        };
        let (solver, fits, layout) = match request.method {
            Method::Solver(solver) => (solver.name(), None, None),
            Method::Fitting(fit) => (exact::NAME, Some(fit.name.to_owned()), None),
            Method::Layout(layout) => (layout.name, None, Some(layout.name.to_owned())),
        };
        let total = scores.unet_parameters;
        let ratio_reached = chosen.removed_parameters as f64 / total as f64;
        let named = problem.named(&chosen.removed);
        let spent = |budget: &Budget| Spent {
            quantity: budget.quantity.to_owned(),
            asked: budget.asked,
            reached: match request.method {
                Method::Layout(_) => chosen.removed_parameters as f64 / budget.total as f64,
                Method::Solver(_) | Method::Fitting(_) => budget.reached(&named),
            },
        };
        Ok(Self {
            format: FORMAT,
            criterion: request.criterion.to_owned(),
            objective: request.objective.name.to_owned(),
            solver: solver.to_owned(),
            fits,
            layout,
            ratio_asked: match request.method {
                Method::Layout(_) => ratio_reached,
                Method::Fitting(_) => problem.budgets[0].asked,
                Method::Solver(_) => request.budgets.parameters.unwrap_or(0.0),
            },
            ratio_reached,
            linear: false,
            budgets: problem.budgets.iter().map(spent).collect(),
            removed_parameters: chosen.removed_parameters,
            unet_parameters: total,
            predicted: Predicted::of(scores, request.criterion, &problem, &chosen.removed, &chosen.solution),
            refinement: None,
            front: sampled(&chosen.front, total),
            baselines: baselines(scores, &problem, request, random)?,
            removed: problem.in_walk_order(&chosen.removed),
        })
    }
}

/// The selection of a solver, with a lower bound where the solver proves none.
fn by_solver(
    scores: &Scores,
    request: &SelectionRequest<'_>,
    problem: &SelectionProblem,
    solver: &dyn Solver,
    random: &Random,
) -> Result<Chosen, SelectError> {
    let front = Front::of(&by_parameters(scores, request, problem)?);
    problem.check()?;
    let mut solution = solver.solve(problem, random);
    solution.bound = solution.bound.or_else(|| bound(problem));
    let removed = problem.removed(&solution.named);
    Ok(Chosen { removed_parameters: scores.parameters(&removed), removed, solution, front })
}

/// The exact optimum among the selections that fit.
fn fitting(
    scores: &Scores,
    request: &SelectionRequest<'_>,
    problem: &mut SelectionProblem,
    fit: &Fit,
) -> Result<Chosen, SelectError> {
    let by_parameters = by_parameters(scores, request, problem)?;
    let front = Front::of_choices(fit.choices(&unet_of_blocks(scores)?, &by_parameters)?);
    if front.heaviest() == 0 {
        return Err(SelectError::NothingFits { fit: fit.name });
    }
    problem.budgets[0].check(front.heaviest())?;
    let point = front.cheapest(problem.budgets[0].needed).expect("the heaviest point is enough");
    let removed = front.removed(point);
    let removed_parameters = scores.parameters(&removed);
    if fit.is_one_shape() {
        // Every selection that fits removes this much, so the baselines are asked for the same.
        problem.budgets[0].ask(removed_parameters);
        problem.budgets[0].asked = request.budgets.parameters.unwrap_or(problem.budgets[0].asked);
    }
    let solution = Solution { named: problem.named(&removed), bound: bound(problem), nodes: 1 };
    Ok(Chosen { removed_parameters, removed, solution, front })
}

/// The units that a handcrafted layout removes.
fn by_layout(
    scores: &Scores,
    request: &SelectionRequest<'_>,
    problem: &mut SelectionProblem,
    layout: &Layout,
) -> Result<Chosen, SelectError> {
    let front = Front::of(&by_parameters(scores, request, problem)?);
    let unet = unet_of_blocks(scores)?;
    let removed_parameters =
        scores.unet_parameters - layout.assemble(&unet)?.config().inventory().parameters();
    let removed = layout.removed(&unet)?;
    // A layout that drops layers can remove more than all units hold.
    let most = problem.budgets[0].saved(&problem.most());
    problem.budgets[0].ask(removed_parameters.min(most));
    let solution = Solution { named: problem.named(&removed), bound: bound(problem), nodes: 0 };
    Ok(Chosen { removed, removed_parameters, solution, front })
}

/// The problem with the sum of scores as objective and parameters as the only budget, under the rules of `problem`.
fn by_parameters(
    scores: &Scores,
    request: &SelectionRequest<'_>,
    problem: &SelectionProblem,
) -> Result<SelectionProblem, SelectError> {
    let summed = SelectionRequest { objective: &OBJECTIVES[0], budgets: Default::default(), ..*request };
    Ok(SelectionProblem { rules: problem.rules.clone(), ..summed.problem(scores)? })
}
