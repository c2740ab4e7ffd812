//! Which stages can start now. A stage is ready when all of its inputs have their artefacts; of the ready ones those that the
//! cache lacks wait here for a place, in the order of the graph.
//!
//! Two stages never make the same key side by side: the second would only wait for the first. A stage that measures times or memory
//! runs alone, when nothing else is left to start. So does one that needs more memory than there is.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::Digest;
use crate::plan::Graph;

/// A stage that the cache lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The stage.
    pub(super) index: usize,
    pub(super) key: Digest,
    /// Whether it needs the device of the run; every other stage can also run on the CPU beside it.
    pub(super) computes: bool,
    /// Whether it measures time.
    pub(super) measures: bool,
    /// The memory that it takes, as far as that is known.
    pub(super) bytes: u64,
}

/// A place at which one stage can run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gpu,
    Cpu,
}

/// What to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A stage beside which nothing else will run.
    Alone(usize),
    /// A stage, at the place with this number.
    At(usize, usize),
}

/// The stages of a run that have not ended.
pub(super) struct Schedule {
    /// The place of each stage in the order of the graph.
    order: BTreeMap<usize, usize>,
    /// How many inputs each stage lacks.
    lacks: BTreeMap<usize, usize>,
    /// Ready, and not looked up yet, by their place in the order.
    ready: BTreeMap<usize, usize>,
    /// Looked up, and not in the cache.
    waiting: BTreeMap<usize, Piece>,
    /// By place.
    running: BTreeMap<usize, Piece>,
}

impl Schedule {
    pub(super) fn new(graph: &Graph, wanted: &BTreeSet<usize>) -> Self {
        let order = graph.order().iter().enumerate().filter(|(_, index)| wanted.contains(index));
        let order: BTreeMap<_, _> = order.map(|(place, &index)| (index, place)).collect();
        let lacks = order.keys().map(|&index| (index, graph.sources(index).len())).collect();
        let mut all =
            Self { order, lacks, ready: BTreeMap::new(), waiting: BTreeMap::new(), running: BTreeMap::new() };
        let ready = all.lacks.iter().filter(|(_, lacks)| **lacks == 0).map(|(&index, _)| index);
        all.ready = ready.map(|index| (all.order[&index], index)).collect();
        all
    }

    /// The first ready stage that was not looked up yet.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        self.ready.pop_first().map(|(_, index)| index)
    }

    /// The cache lacks this one.
    pub(super) fn wait(&mut self, piece: Piece) {
        self.waiting.insert(self.order[&piece.index], piece);
    }

    /// This stage has its artefact.
    pub(super) fn done(&mut self, graph: &Graph, index: usize) {
        for reader in graph.readers(index) {
            if let Some(lacks) = self.lacks.get_mut(&reader) {
                *lacks -= 1;
                if *lacks == 0 {
                    self.ready.insert(self.order[&reader], reader);
                }
            }
        }
    }

    /// The place is free again. Stages with the key of the one that ran there are looked up again.
    pub(super) fn free(&mut self, place: usize) {
        let Some(ended) = self.running.remove(&place) else { return };
        let (same, others) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, piece)| piece.key == ended.key);
        self.waiting = others;
        self.ready.extend(same.into_iter().map(|(place, piece)| (place, piece.index)));
    }

    /// The stage that runs at a place.
    pub(super) fn running_at(&self, place: usize) -> Option<&Piece> {
        self.running.get(&place)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Chooses what to start, with these places and so much memory for stages on the CPU.
    pub(super) fn choose(&self, kinds: &[Kind], budget: u64) -> Option<Start> {
        if self.running.values().any(|piece| piece.measures) {
            return None;
        }
        let keys: BTreeSet<_> = self.running.values().map(|piece| piece.key).collect();
        let mut distinct = keys.clone();
        let open: Vec<_> = self.waiting.values().filter(|piece| distinct.insert(piece.key)).collect();
        if let ([only], true) = (&open[..], self.is_idle()) {
            return Some(Start::Alone(only.index));
        }
        let has_gpu = kinds.contains(&Kind::Gpu);
        let free = |wanted: Kind| {
            (0..kinds.len()).find(|place| kinds[*place] == wanted && !self.running.contains_key(place))
        };
        let on_cpu = self.running.iter().filter(|(place, _)| kinds[**place] == Kind::Cpu);
        let used = on_cpu.fold(0, |sum: u64, (_, piece)| sum.saturating_add(piece.bytes));
        let place = |piece: &Piece| match (has_gpu, piece.computes) {
            (true, true) => free(Kind::Gpu),
            _ if used.saturating_add(piece.bytes) <= budget => {
                free(Kind::Cpu).or_else(|| free(Kind::Gpu).filter(|_| has_gpu))
            }
            _ => None,
        };
        let unmeasures = open.iter().filter(|piece| !piece.measures);
        let start = unmeasures.filter_map(|piece| Some(Start::At(place(piece)?, piece.index))).next();
        start.or_else(|| open.first().filter(|_| self.is_idle()).map(|piece| Start::Alone(piece.index)))
    }

    /// Takes a stage from those that wait.
    pub(super) fn take(&mut self, index: usize) -> Option<Piece> {
        self.waiting.remove(&self.order[&index])
    }

    /// The stage runs at this place.
    pub(super) fn occupy(&mut self, place: usize, piece: Piece) {
        self.running.insert(place, piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(index: usize) -> Piece {
        let key = Digest::of(&[index as u8]);
        Piece { index, key, computes: true, measures: false, bytes: 10 }
    }

    /// Stages without references, of which `pieces` are not in the cache.
    fn schedule(pieces: &[Piece]) -> Schedule {
        let order = (0..pieces.len()).map(|index| (index, index)).collect();
        let (lacks, ready, running) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut schedule = Schedule { order, lacks, ready, waiting: BTreeMap::new(), running };
        pieces.iter().for_each(|piece| schedule.wait(piece.clone()));
        schedule
    }

    /// Starts all that can start beside each other: the stages with their places.
    fn started(schedule: &mut Schedule, kinds: &[Kind], budget: u64) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| match schedule.choose(kinds, budget)? {
            Start::At(place, index) => {
                let piece = schedule.take(index)?;
                schedule.occupy(place, piece);
                Some((index, place))
            }
            Start::Alone(_) => None,
        })
        .collect()
    }

    const TWO: [Kind; 2] = [Kind::Cpu, Kind::Cpu];

    #[test]
    fn as_many_run_as_there_are_places_in_the_order_of_the_graph() {
        let mut schedule = schedule(&[piece(0), piece(1), piece(2)]);
        assert_eq!(started(&mut schedule, &TWO, 100), [(0, 0), (1, 1)]);
        schedule.free(0);
        assert_eq!(started(&mut schedule, &TWO, 100), [(2, 0)]);
    }

    #[test]
    fn the_only_one_is_alone() {
        assert_eq!(schedule(&[piece(0)]).choose(&TWO, 100), Some(Start::Alone(0)));
        let same = Piece { index: 1, ..piece(0) };
        assert_eq!(schedule(&[piece(0), same]).choose(&TWO, 100), Some(Start::Alone(0)));
    }

    #[test]
    fn memory_of_stages_side_by_side_stays_within_the_budget() {
        let mut schedule = schedule(&[piece(0), Piece { bytes: 95, ..piece(1) }, piece(2)]);
        assert_eq!(started(&mut schedule, &TWO, 100), [(0, 0), (2, 1)]);
        [0, 1].into_iter().for_each(|place| schedule.free(place));
        assert_eq!(schedule.choose(&TWO, 100), Some(Start::Alone(1)));
        let mut large = self::schedule(&[Piece { bytes: 200, ..piece(0) }, Piece { bytes: 300, ..piece(1) }]);
        assert_eq!(
            large.choose(&TWO, 100),
            Some(Start::Alone(0)),
            "more than there is, so nothing beside it"
        );
        assert_eq!(started(&mut large, &TWO, u64::MAX), [(0, 0), (1, 1)]);
    }

    #[test]
    fn a_stage_that_measures_time_waits_for_all_others() {
        let mut schedule = schedule(&[Piece { measures: true, ..piece(0) }, piece(1), piece(2)]);
        assert_eq!(started(&mut schedule, &TWO, 100), [(1, 0), (2, 1)]);
        schedule.free(0);
        assert_eq!(schedule.choose(&TWO, 100), None);
        schedule.free(1);
        assert_eq!(schedule.choose(&TWO, 100), Some(Start::Alone(0)));
    }

    #[test]
    fn stages_of_the_cpu_run_beside_those_of_the_gpus() {
        let kinds = [Kind::Gpu, Kind::Gpu, Kind::Cpu];
        let on_cpu = |index| Piece { computes: false, ..piece(index) };
        let mut schedule = schedule(&[on_cpu(0), piece(1), piece(2), piece(3)]);
        assert_eq!(started(&mut schedule, &kinds, 100), [(0, 2), (1, 0), (2, 1)]);
        schedule.free(2);
        assert_eq!(schedule.choose(&kinds, 100), None, "it computes, and both GPUs are taken");
    }

    #[test]
    fn equal_keys_are_made_once() {
        let mut schedule = schedule(&[piece(0), Piece { index: 1, ..piece(0) }, piece(2)]);
        assert_eq!(started(&mut schedule, &TWO, 100), [(0, 0), (2, 1)]);
        schedule.free(0);
        assert_eq!(schedule.next_ready(), Some(1), "it is looked up again");
    }
}
