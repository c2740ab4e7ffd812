//! The whole Pareto front of the additive problem, exactly: for every weight, the least loss that
//! reaches it.
//!
//! Groups are merged one by one. A state stays only while no other has at least its weight at less
//! loss, so equal blocks (SDXL has 60 of one size) collapse and the front stays short. This is the
//! dominance form of dynamic programming over lists (Nemhauser and Ullmann 1969), with the covering
//! problem's direction of dominance.

use std::collections::BTreeSet;

use super::problem::{Group, Item, Problem};
use crate::base::UnitId;

/// A reachable weight with its least loss, and how it was reached.
#[derive(Clone, Copy, Debug)]
struct State {
    weight: u64,
    loss: f64,
    /// Place in the front before this group.
    parent: u32,
    /// Which of the group's options was taken.
    option: u32,
}

/// One way to treat a group.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) weight: u64,
    pub(super) loss: f64,
    pub(super) units: Vec<UnitId>,
}

/// The front of a problem, heaviest point first.
pub struct Front {
    /// Per merged group: its options, and the front after it.
    layers: Vec<(Vec<Choice>, Vec<State>)>,
}

impl Front {
    /// Merges all groups of `problem`.
    pub fn of(problem: &Problem) -> Self {
        Self::of_choices(problem.groups.iter().map(Group::choices).collect())
    }

    /// Merges lists of choices, of each of which one is taken.
    pub(super) fn of_choices(mut choices: Vec<Vec<Choice>>) -> Self {
        // Groups with many options first, while the front is still short.
        choices.sort_by_key(|choices| std::cmp::Reverse(choices.len()));
        let mut states = vec![State { weight: 0, loss: 0.0, parent: 0, option: 0 }];
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

    /// The point of least loss that reaches `needed`, by its place in [`Front::points`].
    pub fn cheapest(&self, needed: u64) -> Option<usize> {
        self.last().partition_point(|state| state.weight >= needed).checked_sub(1)
    }

    /// The most weight that can go.
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

    fn last(&self) -> &[State] {
        self.layers.last().map_or(&[], |(_, states)| states)
    }
}

impl Choice {
    /// Nothing goes.
    pub(super) fn nothing() -> Self {
        Self { weight: 0, loss: 0.0, units: Vec::new() }
    }

    /// One item goes.
    fn of(item: &Item) -> Self {
        Self { weight: item.weight, loss: item.loss, units: vec![item.unit.clone()] }
    }

    /// This and that.
    fn and(&self, other: &Self) -> Self {
        let units = self.units.iter().chain(&other.units).cloned().collect();
        Self { weight: self.weight + other.weight, loss: self.loss + other.loss, units }
    }
}

/// One of either list.
pub(super) fn either(one: Vec<Choice>, two: Vec<Choice>) -> Vec<Choice> {
    merge(one, two)
}

/// One of each list, both at once.
pub(super) fn both(one: &[Choice], two: &[Choice]) -> Vec<Choice> {
    one.iter().map(|one| two.iter().map(|two| one.and(two)).collect()).fold(Vec::new(), merge)
}

impl Group {
    /// The undominated ways to keep exactly `kept` of this group's items, heaviest first; none if it has fewer.
    pub(super) fn keeping(&self, kept: usize) -> Vec<Choice> {
        let Some(gone) = self.items.len().checked_sub(kept) else { return Vec::new() };
        if let (0, Some(whole)) = (kept, &self.whole) {
            return vec![Choice::of(whole)];
        }
        // By how many of the items so far are gone.
        let mut by_count = vec![Vec::new(); gone + 1];
        by_count[0].push(Choice::nothing());
        for item in &self.items {
            for count in (1..=gone).rev() {
                let taken = both(&by_count[count - 1], &[Choice::of(item)]);
                by_count[count] = merge(std::mem::take(&mut by_count[count]), taken);
            }
        }
        by_count.swap_remove(gone)
    }

    /// The undominated ways to treat this group, heaviest first.
    pub(super) fn choices(&self) -> Vec<Choice> {
        // `every` has taken each item so far and `some` has left at least one: only `some` is proper.
        let mut every = Choice::nothing();
        let mut some = Vec::new();
        for item in &self.items {
            let with = |choice: &Choice| choice.and(&Choice::of(item));
            let taken = some.iter().map(with).collect();
            some = merge(merge(some, taken), vec![every.clone()]);
            every = with(&every);
        }
        if let Some(whole) = &self.whole {
            every = Choice::of(whole);
        }
        merge(some, vec![every])
    }
}

/// What dominance compares.
trait Point {
    fn key(&self) -> (u64, f64);
}

impl Point for State {
    fn key(&self) -> (u64, f64) {
        (self.weight, self.loss)
    }
}

impl Point for Choice {
    fn key(&self) -> (u64, f64) {
        (self.weight, self.loss)
    }
}

/// Every state of `front` with every one of `choices`, which are number `first` and on of their group.
fn extend(front: &[State], choices: &[Choice], first: usize) -> Vec<State> {
    if choices.is_empty() {
        return Vec::new();
    }
    if let [choice] = choices {
        let option = first as u32;
        let shift = |(parent, state): (usize, &State)| State {
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

/// Two lists, heaviest first, into one without the dominated; of equals the first list's stays.
fn merge<P: Point>(one: Vec<P>, two: Vec<P>) -> Vec<P> {
    let mut merged: Vec<P> = Vec::with_capacity(one.len() + two.len());
    let mut least = f64::INFINITY;
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    loop {
        let from_one = match (one.peek().map(P::key), two.peek().map(P::key)) {
            (Some(a), Some(b)) => a.0 > b.0 || (a.0 == b.0 && a.1 <= b.1),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return merged,
        };
        let next = if from_one { one.next() } else { two.next() };
        if let Some(next) = next.filter(|next| next.key().1 < least) {
            least = next.key().1;
            merged.push(next);
        }
    }
}
