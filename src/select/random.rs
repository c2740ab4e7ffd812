//! Units in random order: what any criterion must beat.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;

use super::removal::Removal;
use super::{Problem, Solver};
use crate::backend::Random;
use crate::base::UnitId;

pub(super) struct RandomOrder;

impl Solver for RandomOrder {
    fn name(&self) -> &'static str {
        "random"
    }

    fn summary(&self) -> &'static str {
        "units in random order, until enough is gone"
    }

    fn solve(&self, problem: &Problem, needed: u64, random: &Random) -> BTreeSet<UnitId> {
        draw(problem, needed, random, 0)
    }
}

/// The random selection of number `index`: each order of the blocks and ResNets is equally likely.
pub(super) fn draw(problem: &Problem, needed: u64, random: &Random, index: u64) -> BTreeSet<UnitId> {
    let groups = problem.groups.iter().enumerate();
    let mut order: Vec<_> =
        groups.flat_map(|(group, found)| (0..found.items.len()).map(move |item| (group, item))).collect();
    order.shuffle(&mut random.stream("random selection", index));
    let mut removal = Removal::new(problem);
    for (group, item) in order {
        if removal.weight() >= needed {
            break;
        }
        let step = removal.removing(group, item);
        removal.apply(step);
    }
    removal.units()
}
