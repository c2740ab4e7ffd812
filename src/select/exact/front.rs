//! The whole Pareto front of the additive problem, exactly: for every weight, the least loss that
//! reaches it.
//!
//! The choices for each outermost unit are merged one by one. A state is dropped once another has at least its weight at
//! less loss, so equal blocks (SDXL has 60 of one size) collapse and the front stays short. This is the
//! dominance form of dynamic programming over lists (Nemhauser and Ullmann 1969), with the covering
//! problem's direction of dominance.

use std::collections::BTreeSet;

use super::choice::{Choice, Weighed, merge};
use crate::base::UnitId;
use crate::select::problem::SelectionProblem;

/// A reachable weight with its least loss, and how it was reached.
#[derive(Clone, Copy, Debug)]
struct FrontState {
    weight: u64,
    loss: f64,
    /// Index into the front before this list.
    parent: u32,
    /// Index of the choice that was taken.
    option: u32,
}

/// The front before any list is merged, which is also that of a problem without units.
const NOTHING: &[FrontState] = &[FrontState { weight: 0, loss: 0.0, parent: 0, option: 0 }];

/// The front of a problem, heaviest point first.
pub struct Front {
    /// For each merged list, its choices and the front after it.
    layers: Vec<(Vec<Choice>, Vec<FrontState>)>,
}

impl Front {
    /// The front of `problem` by losses and the first budget only.
    pub fn of(problem: &SelectionProblem) -> Self {
        Self::of_choices(problem.tree.roots().map(|unit| problem.choices(unit)).collect())
    }

    /// The front when one choice of each list is taken.
    pub(in crate::select) fn of_choices(mut choices: Vec<Vec<Choice>>) -> Self {
        // Long lists first, while the front is still short.
        choices.sort_by_key(|choices| std::cmp::Reverse(choices.len()));
        let mut states = NOTHING.to_vec();
        let mut layers = Vec::with_capacity(choices.len());
        for choices in choices {
            states = extend(&states, &choices, 0);
            layers.push((choices, states.clone()));
        }
        Self { layers }
    }

    /// Weights and losses of all points, heaviest first; both fall strictly.
    pub fn points(&self) -> impl ExactSizeIterator<Item = (u64, f64)> {
        self.last().iter().map(|state| (state.weight, state.loss))
    }

    /// The index in [`Front::points`] of the point of least loss that reaches `needed`.
    pub fn cheapest(&self, needed: u64) -> Option<usize> {
        self.last().partition_point(|state| state.weight >= needed).checked_sub(1)
    }

    /// The largest weight that can be removed.
    pub fn heaviest(&self) -> u64 {
        self.last().first().map_or(0, |state| state.weight)
    }

    /// The units that the point removes.
    pub fn removed(&self, point: usize) -> BTreeSet<UnitId> {
        let mut removed = BTreeSet::new();
        let mut place = point;
        for (choices, states) in self.layers.iter().rev() {
            let state = states[place];
            removed.extend(choices[state.option as usize].units.iter().cloned());
            place = state.parent as usize;
        }
        removed
    }

    fn last(&self) -> &[FrontState] {
        self.layers.last().map_or(NOTHING, |(_, states)| states)
    }
}

impl Weighed for FrontState {
    fn key(&self) -> (u64, f64) {
        (self.weight, self.loss)
    }
}

/// Combines every state of `front` with each of `choices`, which begin at index `first` of their list.
fn extend(front: &[FrontState], choices: &[Choice], first: usize) -> Vec<FrontState> {
    if choices.is_empty() {
        return Vec::new();
    }
    if let [choice] = choices {
        let option = first as u32;
        let shift = |(parent, state): (usize, &FrontState)| FrontState {
            weight: state.weight + choice.weight,
            loss: state.loss + choice.loss,
            parent: parent as u32,
            option,
        };
        return front.iter().enumerate().map(shift).collect();
    }
    let (left, right) = choices.split_at(choices.len() / 2);
    merge(extend(front, left, first), extend(front, right, first + left.len()))
}
