//! The training loop, which can be stopped and resumed at every step.
//!
//! After a step only the optimiser's tensors remain, so a checkpoint holds those and the number of the step. On the
//! CPU a resumed run gives the same bytes as one that was never interrupted.

use std::thread;

use super::batches::Batches;
use super::checkpoint::{self, TrainingState};
use super::diary::Diary;
use super::distillation::{Distillation, Distilled};
use super::draws::Ahead;
use super::error::DistillError;
use super::held_out::Division;
use super::history::HISTORY_FILE;
use super::student::Student;
use super::term_weights::TermWeights;
use super::validation::VALIDATION_FILE;
use crate::backend::threads;
use crate::base::Interrupted;
use crate::train::{Held, Optimiser, Shards};

impl Distillation<'_> {
    /// Trains to the last step, from the checkpoint if there is one.
    pub fn run(&self) -> Result<Distilled, DistillError> {
        threads::run(|| {
            let batches = self.batches()?;
            thread::scope(|scope| {
                let ahead = Ahead::start(scope, batches.draws());
                self.train(batches, ahead)
            })
        })
    }

    pub(super) fn train(&self, mut batches: Batches<'_>, ahead: Ahead) -> Result<Distilled, DistillError> {
        let steps = u64::from(self.parameters.steps);
        self.progress.length(steps, "steps");
        self.parameters.check_freeze(self.student.weights().keys().map(String::as_str))?;
        let sizes: Vec<usize> = self.student.variables().map(|(_, weight)| weight.elem_count()).collect();
        let mut shards = Shards::new(self.collective, &sizes);
        if let Some(note) = shards.connect(self.device)? {
            self.progress.note(&note);
        }
        let (moments, average) = (self.parameters.moments, self.average());
        let optimiser =
            Optimiser::sharded(self.student.variables(), moments, &average, |index| shards.owns(index))?;
        let division = Division::new(self.parameters, self.data.rows(), self.random)?;
        let state = self.begin(&optimiser.held(&shards), &mut batches, &division.trained)?;
        let mut diary = match self.collective.rank() {
            0 => Some(Diary::open(self.desk(), &state)?),
            _ => None,
        };
        batches.paths = state.measured.features.iter().map(|(path, _)| path.clone()).collect();
        let weights = TermWeights::new(self.parameters, &state.measured);
        let Division { trained, held_out } = division;
        let (order, measured) = (self.order(&trained), state.measured);
        let mut student = Student {
            training: self,
            batches,
            ahead,
            measured,
            weights,
            optimiser,
            shards,
            order,
            held_out,
            pending: None,
        };
        self.progress.position(state.step);
        for step in state.step..steps {
            if self.collective.any(self.interrupt.asked())? {
                student.settle(&mut diary)?;
                if self.collective.any(diary.as_ref().is_some_and(Diary::is_sound))? {
                    student.save(step, &mut diary)?;
                }
                return Err(Interrupted.into());
            }
            student.validate(step, &mut diary)?;
            student.step(step, &mut diary)?;
            student.save_if_due(step + 1, &mut diary)?;
        }
        student.settle(&mut diary)?;
        student.validate(steps, &mut diary)?;
        let (history, validation) = match diary {
            Some(diary) => diary.finish()?,
            None => (self.checkpoint.join(HISTORY_FILE), self.checkpoint.join(VALIDATION_FILE)),
        };
        Ok(Distilled { weights: student.result()?, history, validation })
    }

    /// The state of the checkpoint, which fills the tensors, or that of the beginning.
    fn begin(
        &self,
        tensors: &[Held],
        batches: &mut Batches<'_>,
        rows: &[usize],
    ) -> Result<TrainingState, DistillError> {
        match checkpoint::load(self.checkpoint, tensors, self.collective, self.progress)? {
            Some(state) => {
                self.progress.resumed(state.step);
                Ok(state)
            }
            None => Ok(TrainingState::first(self.measure(batches, rows)?)),
        }
    }
}
