//! A selection that grows move by move, for the solvers that never look back.

use std::collections::BTreeSet;

use super::problem::Problem;
use crate::base::UnitId;

/// What is removed so far.
pub(super) struct Removal<'a> {
    problem: &'a Problem,
    /// Per group and item: whether it is gone.
    gone: Vec<Vec<bool>>,
    weight: u64,
}

/// One more item of a group, or (`item` is `None`) all that is left of the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    group: usize,
    item: Option<usize>,
    /// Weight that it adds.
    pub(super) weight: u64,
    /// Loss that it adds.
    pub(super) loss: f64,
}

impl<'a> Removal<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        let gone = problem.groups.iter().map(|group| vec![false; group.items.len()]).collect();
        Self { problem, gone, weight: 0 }
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// Everything that may be done next.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (group, gone) in self.gone.iter().enumerate() {
            let left: Vec<_> = (0..gone.len()).filter(|&item| !gone[item]).collect();
            if left.len() > 1 || self.problem.groups[group].whole.is_none() {
                moves.extend(left.iter().map(|&item| self.removing(group, item)));
            }
            if !left.is_empty() {
                moves.extend(self.finishing(group));
            }
        }
        moves
    }

    /// Removes `item` of `group`; the last item of a group with a whole takes the whole with it.
    pub(super) fn removing(&self, group: usize, item: usize) -> Move {
        let last = self.gone[group].iter().enumerate().all(|(other, &gone)| gone || other == item);
        if let Some(finish) = last.then(|| self.finishing(group)).flatten() {
            return finish;
        }
        let found = &self.problem.groups[group].items[item];
        Move { group, item: Some(item), weight: found.weight, loss: found.loss }
    }

    /// Removes what is left of a group that has a whole.
    fn finishing(&self, group: usize) -> Option<Move> {
        let whole = self.problem.groups[group].whole.as_ref()?;
        let items = self.problem.groups[group].items.iter().zip(&self.gone[group]);
        let (weight, loss) = items
            .filter(|(_, gone)| **gone)
            .fold((0, 0.0), |(weight, loss), (item, _)| (weight + item.weight, loss + item.loss));
        Some(Move { group, item: None, weight: whole.weight.saturating_sub(weight), loss: whole.loss - loss })
    }

    pub(super) fn apply(&mut self, step: Move) {
        self.weight += step.weight;
        match step.item {
            Some(item) => self.gone[step.group][item] = true,
            None => self.gone[step.group].fill(true),
        }
    }

    /// The removed units; a group that went entirely is named by its whole.
    pub(super) fn units(&self) -> BTreeSet<UnitId> {
        let mut units = BTreeSet::new();
        for (group, gone) in self.problem.groups.iter().zip(&self.gone) {
            match &group.whole {
                Some(whole) if gone.iter().all(|gone| *gone) => {
                    units.insert(whole.unit.clone());
                }
                _ => {
                    let items = group.items.iter().zip(gone).filter(|(_, gone)| **gone);
                    units.extend(items.map(|(item, _)| item.unit.clone()));
                }
            }
        }
        units
    }
}

/// Takes the move of least `key` again and again until `needed` is reached.
pub(super) fn greedily(problem: &Problem, needed: u64, key: impl Fn(&Move) -> f64) -> BTreeSet<UnitId> {
    let mut removal = Removal::new(problem);
    while removal.weight() < needed {
        let moves = removal.moves();
        let best = moves.iter().min_by(|a, b| key(a).total_cmp(&key(b)));
        removal.apply(*best.expect("`Problem::needed` found it reachable"));
    }
    removal.units()
}
