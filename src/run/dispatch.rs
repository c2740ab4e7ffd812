//! Several stages at once: which worker makes which, and what comes back.
//!
//! A stage beside which nothing else can run is made by the process of the run itself, with all threads. Workers have their
//! share of the threads each.

use std::sync::PoisonError;

use super::execute::Executor;
use super::message::{Answer, Order, Task};
use super::schedule::Start;
use super::side_by_side::SideBySide;
use super::workers::Heard;
use super::{Event, ExitCode, RunError, StageState};
use crate::cache::Lookup;

/// The note of a stage that measures times or memory.
const ALONE: &str = "runs alone, because it measures this machine";

impl Executor<'_> {
    /// Starts what can start, and waits for the next thing to happen; `false` if there is nothing left.
    pub(super) fn go_on(&mut self) -> bool {
        while let Some(start) = self.next_start() {
            let (place, index) = match start {
                Start::At(place, index) => (Some(place), index),
                // The process of the run opens no GPU: it would keep memory there that a worker needs.
                Start::Alone(index) => (self.side_by_side.as_ref().and_then(SideBySide::gpu), index),
            };
            let Some(piece) = self.schedule.take(index) else { continue };
            let note = piece.measures.then_some(ALONE);
            let Some(place) = place else {
                self.obtain(index, note).unwrap_or_else(|error| self.failed(index, error));
                return true;
            };
            match self.give(place, index, note) {
                Ok(()) => self.schedule.occupy(place, piece),
                Err(error) => self.failed(index, error),
            }
        }
        if self.schedule.is_idle() {
            return false;
        }
        self.hear();
        true
    }

    fn next_start(&self) -> Option<Start> {
        let goes_on = !self.is_stopped() && !self.job.interrupt.asked();
        let side_by_side = self.side_by_side.as_ref().filter(|_| goes_on)?;
        self.schedule.choose(&side_by_side.kinds, side_by_side.budget)
    }

    /// Gives a stage to the worker of a place, with a note if it runs.
    fn give(&mut self, place: usize, stage: usize, note: Option<&str>) -> Result<(), RunError> {
        self.job.store.save_digests();
        let (inputs, key) = (self.inputs(stage), self.manifest(stage).key());
        let made = self.shop.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let id = self.id(stage);
        let Some(side_by_side) = &mut self.side_by_side else { return Ok(()) };
        let (note, memory) = (note.map(str::to_owned), side_by_side.share(stage));
        let task = Task { stage, key, inputs, made, note, memory };
        let device = side_by_side.places[place];
        let given = side_by_side.workers.give(place, device, &Order::Obtain(task));
        given.map_err(|source| RunError::Worker { stage: id, source })
    }

    /// Waits for the workers, but not for long.
    fn hear(&mut self) {
        let stop = self.is_stopped() || self.job.interrupt.asked();
        let Some(side_by_side) = &mut self.side_by_side else { return };
        if stop {
            side_by_side.stop();
        }
        let Some((place, heard)) = side_by_side.workers.hear() else { return };
        let Some(piece) = self.schedule.running_at(place).cloned() else { return };
        let index = piece.index;
        let ended = match heard {
            Heard::Answer(Answer::Event(event)) => return self.happened(index, &event),
            Heard::Answer(Answer::Obtained { ran, made }) => {
                self.shop.made.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
                self.obtained(index, ran)
            }
            Heard::Answer(Answer::Failed(failure)) => Err(RunError::Elsewhere(failure)),
            Heard::Gone(status) => {
                let number = status.code().and_then(|code| u8::try_from(code).ok());
                let code = number.and_then(ExitCode::of_number).unwrap_or(ExitCode::Stage);
                Err(RunError::Gone { stage: self.id(index), code, status: status.to_string() })
            }
        };
        self.schedule.free(place);
        ended.unwrap_or_else(|error| self.failed(index, error));
    }

    /// A worker tells an event of its stage.
    fn happened(&mut self, index: usize, event: &Event) {
        if let Event::StageStarted { .. } = event {
            self.started(index);
        }
        self.tell(event);
    }

    /// A worker has put the artefact of its stage into the cache.
    fn obtained(&mut self, index: usize, ran: bool) -> Result<(), RunError> {
        let key = self.manifest(index).key();
        match self.job.store.find(&key)? {
            Lookup::Whole(entry) => {
                self.settle(index, if ran { StageState::Done } else { StageState::Cached }, &entry)
            }
            // Somebody removed it at once.
            Lookup::Absent | Lookup::Damaged(_) => Err(RunError::Changed { stage: self.id(index) }),
        }
    }
}
